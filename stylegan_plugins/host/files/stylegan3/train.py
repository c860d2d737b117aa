"""Train StyleGAN3 or StyleGAN2 on images of your own.

This script stands in for the train.py of stylegan3 in a host that was assembled without GitHub. It takes the same
options, builds the same training options from them and calls the same training loop; its text is not NVIDIA's.
"""

import json
import os
import pathlib
import re
import tempfile

import click
import dnnlib
import torch
from metrics import metric_main
from torch_utils import custom_ops, training_stats
from training import training_loop

# What D's images go through with --aug=ada and --aug=fixed: all but filter, noise and cutout.
TRANSFORMATIONS = ('xflip', 'rotate90', 'xint', 'scale', 'rotate', 'aniso', 'xfrac',
                   'brightness', 'contrast', 'lumaflip', 'hue', 'saturation')


def subprocess_fn(rank, c, temp_dir):
    """One process of a run, one GPU."""
    dnnlib.util.Logger(file_name=os.path.join(c.run_dir, 'log.txt'), file_mode='a', should_flush=True)
    if c.num_gpus > 1:
        meeting_point = os.path.abspath(os.path.join(temp_dir, '.torch_distributed_init'))
        if os.name == 'nt':     # no nccl there
            url = 'file:///' + meeting_point.replace(os.sep, '/')
            torch.distributed.init_process_group(backend='gloo', init_method=url, rank=rank, world_size=c.num_gpus)
        else:
            url = 'file://' + meeting_point
            torch.distributed.init_process_group(backend='nccl', init_method=url, rank=rank, world_size=c.num_gpus)
    sync_device = torch.device('cuda', rank) if c.num_gpus > 1 else None
    training_stats.init_multiprocessing(rank=rank, sync_device=sync_device)
    if rank > 0:
        custom_ops.verbosity = 'none'
    training_loop.training_loop(rank=rank, **c)


def launch_training(c, desc, outdir, dry_run):
    """Name the run, show its options, write them down, and start the processes."""
    dnnlib.util.Logger(should_flush=True)
    c.run_dir = os.path.join(outdir, f'{next_run_id(outdir):05d}-{desc}')
    print_options(c)
    if dry_run:
        print('Dry run: nothing was written.')
    else:
        start(c)


def start(c):
    """Write the training options into the run's folder, and start a process for each GPU."""
    print(f'Starting {c.num_gpus} process(es)...')
    run_dir = pathlib.Path(c.run_dir)
    run_dir.mkdir(parents=True)
    (run_dir / 'training_options.json').write_text(json.dumps(c, indent=2), encoding='utf-8')
    torch.multiprocessing.set_start_method('spawn')     # CUDA does not survive a fork
    with tempfile.TemporaryDirectory() as shared:
        if c.num_gpus > 1:
            torch.multiprocessing.spawn(subprocess_fn, (c, shared), c.num_gpus)
        else:
            subprocess_fn(0, c, shared)


def next_run_id(outdir):
    """One more than the largest number that a folder in `outdir` starts with."""
    folders = [entry.name for entry in os.scandir(outdir) if entry.is_dir()] if os.path.isdir(outdir) else []
    numbers = [int(match.group()) for match in (re.match(r'\d+', name) for name in folders) if match]
    return max(numbers, default=-1) + 1


def print_options(c):
    """All training options as JSON, then the ones that a reader looks for first."""
    dataset = c.training_set_kwargs
    print('\nTraining options:')
    print(json.dumps(c, indent=2))
    print()
    for label, value in (
            ('Output directory', c.run_dir), ('Number of GPUs', c.num_gpus), ('Batch size', f'{c.batch_size} images'),
            ('Training duration', f'{c.total_kimg} kimg'), ('Dataset path', dataset.path),
            ('Dataset size', f'{dataset.max_size} images'), ('Dataset resolution', dataset.resolution),
            ('Dataset labels', dataset.use_labels), ('Dataset x-flips', dataset.xflip)):
        print(f'{label + ":":<21}{value}')
    print()


def init_dataset_kwargs(data):
    """Open the data set; its arguments, written down in full, and its name."""
    kwargs = dnnlib.EasyDict(
        class_name='training.dataset.ImageFolderDataset', path=data, use_labels=True, max_size=None, xflip=False)
    try:
        images = dnnlib.util.construct_class_by_name(**kwargs)
        kwargs.update(resolution=images.resolution, use_labels=images.has_labels, max_size=len(images))
    except OSError as err:
        raise click.ClickException(f'--data: {err}') from err
    return kwargs, images.name


def init_config(opts):
    """The part of the configuration that all networks share, with the sections in the order they are saved in."""
    adam = {'class_name': 'torch.optim.Adam', 'betas': [0, 0.99], 'eps': 1e-8}
    stylegan2 = opts.cfg == 'stylegan2'
    layers = opts.map_depth or (8 if stylegan2 else 2)
    glr = (0.002 if stylegan2 else 0.0025) if opts.glr is None else opts.glr
    width = {'channel_base': opts.cbase, 'channel_max': opts.cmax}
    return dnnlib.EasyDict(
        G_kwargs=dnnlib.EasyDict(
            class_name=None, z_dim=512, w_dim=512, mapping_kwargs=dnnlib.EasyDict(num_layers=layers), **width),
        D_kwargs=dnnlib.EasyDict(
            class_name='training.networks_stylegan2.Discriminator',
            block_kwargs=dnnlib.EasyDict(freeze_layers=opts.freezed), mapping_kwargs=dnnlib.EasyDict(),
            epilogue_kwargs=dnnlib.EasyDict(mbstd_group_size=opts.mbstd_group), **width),
        G_opt_kwargs=dnnlib.EasyDict(adam, lr=glr),
        D_opt_kwargs=dnnlib.EasyDict(adam, lr=opts.dlr),
        loss_kwargs=dnnlib.EasyDict(class_name='training.loss.StyleGAN2Loss', r1_gamma=opts.gamma),
        data_loader_kwargs=dnnlib.EasyDict(pin_memory=True, prefetch_factor=2, num_workers=opts.workers))


def check_config(c):
    """Raise ClickException for numbers that do not divide each other, and for unknown metrics."""
    group = c.D_kwargs.epilogue_kwargs.mbstd_group_size
    if c.batch_size % c.num_gpus:
        raise click.ClickException(f'--batch={c.batch_size} must be a multiple of --gpus={c.num_gpus}')
    if c.batch_size % (c.num_gpus * c.batch_gpu):
        raise click.ClickException(f'--batch={c.batch_size} must be a multiple of --gpus={c.num_gpus} times '
                                   f'--batch-gpu={c.batch_gpu}')
    if c.batch_gpu < group:
        raise click.ClickException(f'--mbstd-group={group} must not be larger than the {c.batch_gpu} images that a GPU '
                                   'gets; lower it, or raise --batch or --batch-gpu')
    unknown = [metric for metric in c.metrics if not metric_main.is_valid_metric(metric)]
    if unknown:
        known = ', '.join(metric_main.list_valid_metrics())
        raise click.ClickException(f'--metrics: there is no {", ".join(unknown)}; choose from {known}, or none')


def add_generator(c, cfg):
    """What --cfg means: the class of G, its special arguments, and the regularisation that goes with it."""
    c.ema_kimg = c.batch_size * 10 / 32
    if cfg == 'stylegan2':
        # Ordinary convolutions, and no gradients of weights in path length regularisation, are for speed.
        c.G_kwargs.class_name = 'training.networks_stylegan2.Generator'
        c.G_kwargs.fused_modconv_default = 'inference_only'
        c.loss_kwargs.update(style_mixing_prob=0.9, pl_weight=2, pl_no_weight_grad=True)
        c.G_reg_interval = 4
        return
    c.G_kwargs.class_name = 'training.networks_stylegan3.Generator'
    c.G_kwargs.magnitude_ema_beta = 0.5 ** (c.batch_size / (20 * 1e3))
    if cfg == 'stylegan3-r':
        # 1x1 convolutions and radial filters make G equivariant to rotation; it is twice as wide to make up for them.
        c.G_kwargs.update(conv_kernel=1, use_radial_filters=True)
        c.G_kwargs.update(channel_base=c.G_kwargs.channel_base * 2, channel_max=c.G_kwargs.channel_max * 2)
        # D sees blurred images at first, or it would end the training early.
        c.loss_kwargs.update(blur_init_sigma=10, blur_fade_kimg=c.batch_size * 200 / 32)


def add_training_options(c, opts):
    """Augmentation, fine-tuning and performance."""
    if opts.aug != 'noaug':
        c.augment_kwargs = dnnlib.EasyDict(
            class_name='training.augment.AugmentPipe', **dict.fromkeys(TRANSFORMATIONS, 1))
        if opts.aug == 'ada':
            c.ada_target = opts.target
        else:
            c.augment_p = opts.p
    if opts.resume is not None:     # a trained network needs no gentle start
        c.update(resume_pkl=opts.resume, ada_kimg=100, ema_rampup=None)
        c.loss_kwargs.blur_init_sigma = 0
    if opts.fp32:
        for kwargs in (c.G_kwargs, c.D_kwargs):
            kwargs.update(num_fp16_res=0, conv_clamp=None)
    if opts.nobench:
        c.cudnn_benchmark = False


def parse_comma_separated_list(s):
    """a,b,c as a list; nothing, or none, as an empty one."""
    if isinstance(s, list):
        return s
    return [] if s is None or s.lower() in ('', 'none') else s.split(',')


REQUIRED = object()     # as a default: the option must be given
ONE_UP = click.IntRange(min=1)
ZERO_UP = click.IntRange(min=0)
UNIT = click.FloatRange(min=0, max=1)

# name, type, default, metavar, help
OPTIONS = (
    ('--outdir', str, REQUIRED, 'DIR', 'Folder in which a numbered folder for this run is made'),
    ('--cfg', click.Choice(['stylegan3-t', 'stylegan3-r', 'stylegan2']), REQUIRED, None,
     'Generator: equivariant to translation, to rotation too, or that of StyleGAN2'),
    ('--data', str, REQUIRED, '[ZIP|DIR]', 'Folder or zip archive with the training images'),
    ('--gpus', ONE_UP, REQUIRED, 'INT', 'Processes to train with, one per GPU'),
    ('--batch', ONE_UP, REQUIRED, 'INT', 'Images per step over all GPUs'),
    ('--gamma', click.FloatRange(min=0), REQUIRED, 'FLOAT', 'Weight of the R1 penalty'),
    ('--cond', bool, False, 'BOOL', 'Train on the labels in dataset.json'),
    ('--mirror', bool, False, 'BOOL', 'Add every image mirrored'),
    ('--aug', click.Choice(['noaug', 'ada', 'fixed']), 'ada', None, 'How strongly D\'s images are augmented'),
    ('--resume', str, None, '[PATH|URL]', 'Network to fine-tune'),
    ('--freezed', ZERO_UP, 0, 'INT', 'Number of D\'s layers to keep as they are'),
    ('--p', UNIT, 0.2, 'FLOAT', 'Probability of each augmentation with --aug=fixed'),
    ('--target', UNIT, 0.6, 'FLOAT', 'Sign statistic that ADA holds, with --aug=ada'),
    ('--batch-gpu', ONE_UP, None, 'INT', 'Images that a GPU takes at once; its share of --batch if left out'),
    ('--cbase', ONE_UP, 32768, 'INT', 'Feature maps of a layer, times its resolution'),
    ('--cmax', ONE_UP, 512, 'INT', 'Most feature maps that a layer has'),
    ('--glr', click.FloatRange(min=0), None, 'FLOAT', 'Learning rate of G; that of --cfg if left out'),
    ('--dlr', click.FloatRange(min=0), 0.002, 'FLOAT', 'Learning rate of D'),
    ('--map-depth', ONE_UP, None, 'INT', 'Layers of the mapping network; those of --cfg if left out'),
    ('--mbstd-group', ONE_UP, 4, 'INT', 'Images over which D compares standard deviations'),
    ('--desc', str, None, 'STR', 'Words to add to the name of the run'),
    ('--metrics', parse_comma_separated_list, 'fid50k_full', '[NAME|A,B,C|none]', 'Metrics at each snapshot'),
    ('--kimg', ONE_UP, 25000, 'KIMG', 'Length of the training in thousands of images'),
    ('--tick', ONE_UP, 4, 'KIMG', 'Thousands of images between two reports'),
    ('--snap', ONE_UP, 50, 'TICKS', 'Ticks between two snapshots'),
    ('--seed', ZERO_UP, 0, 'INT', 'Start of the random numbers'),
    ('--fp32', bool, False, 'BOOL', 'Compute all layers in float32'),
    ('--nobench', bool, False, 'BOOL', 'Do not let cuDNN try out its algorithms'),
    ('--workers', ONE_UP, 3, 'INT', 'Processes that load images'),
)


def add_options(command):
    """Decorate a function with OPTIONS."""
    for name, kind, default, metavar, words in reversed(OPTIONS):
        rest = {'required': True} if default is REQUIRED else {'default': default, 'show_default': default is not None}
        command = click.option(name, type=kind, metavar=metavar, help=words, **rest)(command)
    return command


@click.command()
@add_options
@click.option('-n', '--dry-run', is_flag=True, help='Show the training options and stop')
def main(**kwargs):
    """Train a GAN whose details move with what they belong to, or a StyleGAN2.

    \b
    python train.py --outdir=runs --cfg=stylegan3-t --data=images.zip --gpus=8 --batch=32 --gamma=8.2 --mirror=1
    python train.py --outdir=runs --cfg=stylegan2 --data=images.zip --gpus=1 --batch=16 --gamma=1 --resume=network.pkl
    """
    opts = dnnlib.EasyDict(kwargs)
    c = init_config(opts)
    c.training_set_kwargs, dataset_name = init_dataset_kwargs(data=opts.data)
    if opts.cond and not c.training_set_kwargs.use_labels:
        raise click.ClickException(f'--cond=1 needs labels, and {opts.data} has none in its dataset.json')
    c.training_set_kwargs.update(use_labels=opts.cond, xflip=opts.mirror, random_seed=opts.seed)

    c.update(
        num_gpus=opts.gpus, batch_size=opts.batch, batch_gpu=opts.batch_gpu or opts.batch // opts.gpus,
        metrics=opts.metrics, total_kimg=opts.kimg, kimg_per_tick=opts.tick, image_snapshot_ticks=opts.snap,
        network_snapshot_ticks=opts.snap, random_seed=opts.seed)
    check_config(c)
    add_generator(c, opts.cfg)
    add_training_options(c, opts)

    words = [opts.cfg, dataset_name, f'gpus{c.num_gpus}', f'batch{c.batch_size}', f'gamma{opts.gamma:g}']
    desc = '-'.join(words if opts.desc is None else [*words, opts.desc])
    launch_training(c=c, desc=desc, outdir=opts.outdir, dry_run=opts.dry_run)


if __name__ == '__main__':
    main()
