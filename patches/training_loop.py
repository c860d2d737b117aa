"""Edits of training/training_loop.py: device and timing, gradients of several processes, and calls of the session."""

from __future__ import annotations

from functools import partial

from stylegan_plugins.patches.common import bridge_import, pin_memory

from stylegan_plugins.host.edits import Assignment, Call, Deletion, Edit, Increment
from stylegan_plugins.host.families import ADA, Family

FILE = "training/training_loop.py"
loop_edit = partial(Edit, file=FILE, function="training_loop")
memory_edit = partial(loop_edit, every=True, reason="the CUDA allocator has no statistics on a CPU")
POSITION = "cur_nimg, cur_tick, tick_start_nimg, batch_idx"


def edits(family: Family) -> list[Edit]:
    return [
        bridge_import(FILE),
        loop_edit(
            replace=Call("torch.device", containing="cuda"),
            code="bridge.device(rank)",
            reason="the loop is hard-wired to CUDA; --device decides",
        ),
        loop_edit(
            replace=Call("torch.cuda.Event"),
            every=True,
            code="bridge.event(device)",
            reason="CUDA events do not exist without a GPU; on a CPU a clock is read instead",
        ),
        loop_edit(
            replace=Call("torch.cuda.current_stream"),
            every=True,
            code="bridge.stream({arguments})",
            reason="there is no stream without a GPU",
        ),
        pin_memory(FILE),
        memory_edit(replace=Call("torch.cuda.max_memory_allocated"), code="bridge.peak_memory({arguments})"),
        memory_edit(
            replace=Call("torch.cuda.max_memory_reserved"),
            optional=True,
            code="bridge.peak_memory_reserved({arguments})",
            reason="the CUDA allocator has no statistics on a CPU (only newer hosts report this one)",
        ),
        memory_edit(replace=Call("torch.cuda.reset_peak_memory_stats"), code="bridge.reset_peak_memory(device)"),
        *(_ada_gradients() if family is ADA else []),
        loop_edit(
            before=Call("save_image_grid", containing="'reals.png'"),
            optional=True,
            code="grid_size, images, labels = bridge.previews().grid(grid_size, images, labels, G_ema, D, batch_gpu)",
            reason="says how long the run takes; on a CPU, image grids are of a size that takes seconds",
        ),
        loop_edit(
            replace=Call("torch.randn", containing="labels.shape[0]"),
            optional=True,
            code="bridge.previews().latents({arguments})",
            reason="a smaller grid must not change the random numbers of training",
        ),
        loop_edit(
            before=Assignment("stats_collector"),
            code="bridge.session().attach(G=G, D=D, G_ema=G_ema, augment_pipe=augment_pipe, loss=loss, phases=phases)",
            reason="all networks, the loss and the optimisers exist; stats.jsonl is not yet opened",
        ),
        *_resume(),
        *_fine_tuning(),
        loop_edit(
            after=Call("phase.opt.step"),
            code="bridge.session().step_end(phase)",
            reason="modules that are trained with D have their own optimisers, which step now",
        ),
        loop_edit(
            after=Increment("batch_idx"),
            code="bridge.checkpoints().batch_end(cur_nimg, batch_idx)",
            reason="one iteration is done: progress line, plug-ins that count images, and values that are not finite",
        ),
        loop_edit(
            before=Deletion("snapshot_data"),
            code="bridge.session().snapshot(snapshot_pkl, cur_nimg)",
            reason="a snapshot may just have been written: plug-ins keep what belongs to it",
        ),
    ]


def _resume() -> list[Edit]:
    """Return edits for exact resuming: the state is written and restored right before the next batch."""
    return [
        loop_edit(
            replace=Call("misc.InfiniteSampler"),
            code="bridge.checkpoints().sampler({function}({arguments}))",
            reason="a resumed run continues with the next images; a data loader runs ahead of the loop",
        ),
        *(
            loop_edit(
                replace=Call("save_image_grid", containing=f"'{name}'"),
                optional=True,
                code="bridge.checkpoints().unless_resumed({function}, {arguments})",
                reason=f"{name} is of the beginning of a run; a resumed one keeps it",
            )
            for name in ("reals.png", "fakes_init.png")
        ),
        loop_edit(
            replace=Call("open", containing="'stats.jsonl'"),
            code="bridge.checkpoints().open_log({arguments})",
            reason="the loop empties stats.jsonl when it starts; a resumed run goes on in it",
        ),
        loop_edit(
            argument=Call("tensorboard.SummaryWriter"),
            optional=True,
            code="purge_step=bridge.checkpoints().purge_step",
            reason="tensorboard forgets what a killed run logged after its last state",
        ),
        loop_edit(
            after=Assignment("batch_idx"),
            code=f"{POSITION} = bridge.checkpoints().position({POSITION})",
            reason="a resumed run does not begin at 0",
        ),
        loop_edit(
            before=Call("next", containing="training_set_iterator"),
            code="if bridge.checkpoints().next_batch(locals()): break",
            reason="state is put back, written from time to time and at a signal, which ends the run here",
        ),
        loop_edit(
            replace=Call("next", containing="training_set_iterator"),
            code="bridge.checkpoints().fetch({arguments})",
            reason="a batch that cannot be read ends the run with a state written, on all processes",
        ),
        loop_edit(
            replace=Call("open", containing="snapshot_pkl"),
            optional=True,
            code="bridge.whole_file({argument})",
            reason="a full disk or a kill leaves no half snapshot, which would be the newest",
        ),
    ]


def _fine_tuning() -> list[Edit]:
    """Return edits for --resume=PKL: code in the pickle is not executed, tensors of other shapes are not broadcast."""
    return [
        loop_edit(
            replace=Call("legacy.load_network_pkl"),
            every=True,
            optional=True,
            code="bridge.load_pickle({arguments})",
            reason="a pickle is a program, and the hosts' own carry source code: tensors and names are read from it",
        ),
        loop_edit(
            replace=Call("misc.copy_params_and_buffers", containing="resume_data"),
            every=True,
            optional=True,
            code="bridge.copy_network({arguments})",
            reason="the host copies by name with broadcasting, and is silent about what it leaves at random",
        ),
    ]


def _ada_gradients() -> list[Edit]:
    """Return edits for several processes, as in stylegan3: broadcast once, sum gradients before each step."""
    return [
        loop_edit(
            replace=Call("torch.nn.parallel.DistributedDataParallel"),
            code="bridge.broadcast({argument})",
            reason="the DDP reducer refuses parameters without gradient, and device_ids on a CPU",
        ),
        loop_edit(
            after=Call("phase.module.requires_grad_", containing="False"),
            code="bridge.average_gradients(phase.module, num_gpus)",
            reason="takes the place of DDP: gradients of all processes are averaged before the step",
        ),
    ]
