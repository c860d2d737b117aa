"""Train StyleGAN2-ADA on images of your own.

This script stands in for the train.py of stylegan2-ada-pytorch in a host that was assembled without GitHub. It takes
the same options, builds the same training options from them and calls the same training loop; its text is not NVIDIA's.
"""

import collections
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


class UserError(Exception):
    """An option has a value that training cannot use; the message says which."""


# What --cfg stands for. gpus: for how many GPUs `batch` is meant. fmaps: factor on the number of feature maps.
# ema: half-life of the generator's average in kimg, rampup: its growth with the images seen so far, None = constant.
Config = collections.namedtuple('Config', 'gpus kimg batch mbstd fmaps lrate gamma ema rampup layers')
CONFIGS = {
    'stylegan2': Config(8, 25000, 32, 4, 1, 0.002, 10, 10, None, 8),
    'paper256': Config(8, 25000, 64, 8, 0.5, 0.0025, 1, 20, None, 8),
    'paper512': Config(8, 25000, 64, 8, 1, 0.0025, 0.5, 20, None, 8),
    'paper1024': Config(8, 25000, 32, 4, 1, 0.002, 2, 10, None, 8),
    'cifar': Config(2, 100000, 64, 32, 1, 0.0025, 0.01, 500, 0.05, 2),
}

# What --augpipe stands for: groups of transformations, and which of them each name switches on.
TRANSFORMATIONS = {
    'blit': ('xflip', 'rotate90', 'xint'),
    'geom': ('scale', 'rotate', 'aniso', 'xfrac'),
    'color': ('brightness', 'contrast', 'lumaflip', 'hue', 'saturation'),
    'filter': ('imgfilter',),
    'noise': ('noise',),
    'cutout': ('cutout',),
}
PIPELINES = {name: (name,) for name in TRANSFORMATIONS}
PIPELINES.update({'bgcfnc'[:count]: tuple(TRANSFORMATIONS)[:count] for count in range(2, 7)})

SOURCES = 'https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets/'
PICKLES = {
    'ffhq256': 'ffhq-res256-mirror-paper256-noaug.pkl',
    'ffhq512': 'ffhq-res512-mirror-stylegan2-noaug.pkl',
    'ffhq1024': 'ffhq-res1024-mirror-stylegan2-noaug.pkl',
    'celebahq256': 'celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl',
    'lsundog256': 'lsundog-res256-paper256-kimg100000-noaug.pkl',
}

DEFAULTS = {
    'gpus': 1, 'snap': 50, 'metrics': ['fid50k_full'], 'seed': 0, 'cond': False, 'mirror': False, 'cfg': 'auto',
    'aug': 'ada', 'augpipe': 'bgc', 'resume': 'noresume',
    'fp32': False, 'nhwc': False, 'allow_tf32': False, 'nobench': False,
}

# Options with a range: the test of a value that was given or is the default, and the words for it.
RANGES = {
    'gpus': (lambda value, opts: value >= 1 and value & (value - 1) == 0, 'a power of two'),
    'snap': (lambda value, opts: value >= 1, 'at least 1'),
    'gamma': (lambda value, opts: value >= 0, 'at least 0'),
    'kimg': (lambda value, opts: value >= 1, 'at least 1'),
    'batch': (lambda value, opts: value >= 1 and value % opts.gpus == 0, 'at least 1 and a multiple of --gpus'),
    'p': (lambda value, opts: 0 <= value <= 1, 'between 0 and 1'),
    'target': (lambda value, opts: 0 <= value <= 1, 'between 0 and 1'),
    'freezed': (lambda value, opts: value >= 0, 'at least 0'),
    'workers': (lambda value, opts: value >= 1, 'at least 1'),
}

# What the name of a run says, in this order: only of options that were given, and of switches only if they are on.
NAMES = {
    'cond': lambda value: 'cond' if value else None,
    'subset': 'subset{}'.format,
    'mirror': lambda value: 'mirror' if value else None,
    'cfg': str,
    'gamma': 'gamma{:g}'.format,
    'kimg': 'kimg{}'.format,
    'batch': 'batch{}'.format,
    'aug': str,
    'p': 'p{:g}'.format,
    'target': 'target{:g}'.format,
    'augpipe': str,
    'resume': lambda value: value if value == 'noresume' else 'resume' + (value if value in PICKLES else 'custom'),
    'freezed': 'freezed{}'.format,
}


def setup_training_loop_kwargs(
    gpus=None, snap=None, metrics=None, seed=None,
    data=None, cond=None, subset=None, mirror=None,
    cfg=None, gamma=None, kimg=None, batch=None,
    aug=None, p=None, target=None, augpipe=None,
    resume=None, freezed=None,
    fp32=None, nhwc=None, allow_tf32=None, nobench=None, workers=None,
):
    """The options of the command line, None = not given, as (name of the run, arguments of the training loop)."""
    opts = dnnlib.EasyDict(locals())
    given = {name for name, value in opts.items() if value is not None}
    for name, value in DEFAULTS.items():
        if name not in given:
            opts[name] = value
    check_options(opts, given)

    args = dnnlib.EasyDict()
    args.num_gpus = opts.gpus
    args.image_snapshot_ticks = args.network_snapshot_ticks = opts.snap
    args.metrics = opts.metrics
    args.random_seed = opts.seed

    dataset_name = add_dataset(args, opts)
    add_config(args, opts)
    add_augmentation(args, opts)
    add_resume(args, opts)
    add_performance(args, opts)
    return '-'.join([dataset_name, *name_options(opts, given)]), args


def check_options(opts, given):
    """Raise UserError for a value out of its range, and for options that do not go together."""
    for name, (test, words) in RANGES.items():
        if opts[name] is not None and not test(opts[name], opts):
            raise UserError(f'--{name} must be {words}, got {opts[name]}')
    unknown = [metric for metric in opts.metrics if not metric_main.is_valid_metric(metric)]
    if unknown:
        known = ', '.join(metric_main.list_valid_metrics())
        raise UserError(f'--metrics: there is no {", ".join(unknown)}; choose from {known}, or none')
    for name, choices in (('cfg', ('auto', *CONFIGS)), ('aug', ('ada', 'noaug', 'fixed')), ('augpipe', PIPELINES)):
        if opts[name] not in choices:
            raise UserError(f'--{name} must be one of {", ".join(choices)}, got {opts[name]}')
    if opts.aug == 'fixed' and 'p' not in given:
        raise UserError('--aug=fixed needs a probability; add --p')
    for name, modes in (('p', ('fixed',)), ('target', ('ada',)), ('augpipe', ('ada', 'fixed'))):
        if name in given and opts.aug not in modes:
            raise UserError(f'--{name} goes with --aug={" or ".join(modes)}, not with --aug={opts.aug}')


def add_dataset(args, opts):
    """Open the data set, write its arguments down in full, and return its name."""
    dataset = args.training_set_kwargs = dnnlib.EasyDict(
        class_name='training.dataset.ImageFolderDataset', path=opts.data, use_labels=True, max_size=None, xflip=False)
    args.data_loader_kwargs = dnnlib.EasyDict(pin_memory=True, num_workers=3, prefetch_factor=2)
    try:
        images = dnnlib.util.construct_class_by_name(**dataset)
        dataset.update(resolution=images.resolution, max_size=len(images))
        has_labels = images.has_labels
    except OSError as err:
        raise UserError(f'--data: {err}') from err
    if opts.cond and not has_labels:
        raise UserError(f'--cond=1 needs labels, and {opts.data} has none in its dataset.json')
    dataset.update(use_labels=opts.cond, xflip=opts.mirror)
    if opts.subset is not None:
        if not 1 <= opts.subset <= len(images):
            raise UserError(f'--subset must be between 1 and {len(images)}, got {opts.subset}')
        if opts.subset < len(images):
            dataset.update(max_size=opts.subset, random_seed=opts.seed)
    return images.name


def find_config(opts, resolution):
    """The values of --cfg; those of `auto` follow from the resolution and the number of GPUs."""
    if opts.cfg != 'auto':
        return CONFIGS[opts.cfg]
    per_gpu = min(4096 // resolution, 32)                       # what fits into the memory of a GPU
    batch = max(min(opts.gpus * per_gpu, 64), opts.gpus)
    return Config(
        gpus=opts.gpus, kimg=25000, batch=batch, mbstd=min(batch // opts.gpus, 4),
        fmaps=1 if resolution >= 512 else 0.5, lrate=0.002 if resolution >= 1024 else 0.0025,
        gamma=0.0002 * (resolution ** 2) / batch, ema=batch * 10 / 32, rampup=0.05, layers=2)


def add_config(args, opts):
    """Networks, optimisers, loss and schedule: --cfg and the options that override parts of it."""
    config = find_config(opts, args.training_set_kwargs.resolution)
    shared = {'channel_base': int(config.fmaps * 32768), 'channel_max': 512, 'num_fp16_res': 4, 'conv_clamp': 256}
    args.G_kwargs = dnnlib.EasyDict(
        class_name='training.networks.Generator', z_dim=512, w_dim=512,
        mapping_kwargs=dnnlib.EasyDict(num_layers=config.layers), synthesis_kwargs=dnnlib.EasyDict(shared))
    args.D_kwargs = dnnlib.EasyDict(
        class_name='training.networks.Discriminator', block_kwargs=dnnlib.EasyDict(), mapping_kwargs=dnnlib.EasyDict(),
        epilogue_kwargs=dnnlib.EasyDict(mbstd_group_size=config.mbstd), **shared)
    for name in ('G_opt_kwargs', 'D_opt_kwargs'):
        args[name] = dnnlib.EasyDict(class_name='torch.optim.Adam', lr=config.lrate, betas=[0, 0.99], eps=1e-8)
    args.loss_kwargs = dnnlib.EasyDict(
        class_name='training.loss.StyleGAN2Loss', r1_gamma=config.gamma if opts.gamma is None else opts.gamma)
    args.total_kimg = config.kimg if opts.kimg is None else opts.kimg
    args.batch_size = config.batch if opts.batch is None else opts.batch
    args.batch_gpu = config.batch // config.gpus if opts.batch is None else opts.batch // opts.gpus
    args.ema_kimg = config.ema
    args.ema_rampup = config.rampup
    if opts.cfg == 'cifar':
        args.loss_kwargs.update(pl_weight=0, style_mixing_prob=0)
        args.D_kwargs.architecture = 'orig'


def add_augmentation(args, opts):
    """What D's images go through: --aug, --p, --target, --augpipe."""
    if opts.aug == 'noaug':
        return
    if opts.aug == 'ada':
        args.ada_target = 0.6 if opts.target is None else opts.target
    else:
        args.augment_p = opts.p
    names = [name for group in PIPELINES[opts.augpipe] for name in TRANSFORMATIONS[group]]
    args.augment_kwargs = dnnlib.EasyDict(class_name='training.augment.AugmentPipe', **dict.fromkeys(names, 1))


def add_resume(args, opts):
    """Fine-tuning: --resume, with settings that suit a network that is trained already, and --freezed."""
    if opts.resume != 'noresume':
        args.resume_pkl = SOURCES + PICKLES[opts.resume] if opts.resume in PICKLES else opts.resume
        args.ada_kimg = 100
        args.ema_rampup = None
    if opts.freezed is not None:
        args.D_kwargs.block_kwargs.freeze_layers = opts.freezed


def add_performance(args, opts):
    """Number formats, memory layout, cuDNN and data-loader workers."""
    synthesis, D_kwargs = args.G_kwargs.synthesis_kwargs, args.D_kwargs
    if opts.fp32:
        for kwargs in (synthesis, D_kwargs):
            kwargs.update(num_fp16_res=0, conv_clamp=None)
    if opts.nhwc:
        for kwargs in (synthesis, D_kwargs.block_kwargs):
            kwargs.fp16_channels_last = True
    if opts.nobench:
        args.cudnn_benchmark = False
    if opts.allow_tf32:
        args.allow_tf32 = True
    if opts.workers is not None:
        args.data_loader_kwargs.num_workers = opts.workers


def name_options(opts, given):
    """The parts of the run's name that options contribute; the number of GPUs follows `auto`."""
    for name, words in NAMES.items():
        if name == 'cfg':
            yield f'auto{opts.gpus}' if opts.cfg == 'auto' else opts.cfg
        elif name in given and words(opts[name]):
            yield words(opts[name])


def subprocess_fn(rank, args, temp_dir):
    """One process of a run, one GPU."""
    dnnlib.util.Logger(file_name=os.path.join(args.run_dir, 'log.txt'), file_mode='a', should_flush=True)
    if args.num_gpus > 1:
        meeting_point = os.path.abspath(os.path.join(temp_dir, '.torch_distributed_init'))
        if os.name == 'nt':     # no nccl there
            url = 'file:///' + meeting_point.replace(os.sep, '/')
            torch.distributed.init_process_group(
                backend='gloo', init_method=url, rank=rank, world_size=args.num_gpus)
        else:
            url = 'file://' + meeting_point
            torch.distributed.init_process_group(
                backend='nccl', init_method=url, rank=rank, world_size=args.num_gpus)
    sync_device = torch.device('cuda', rank) if args.num_gpus > 1 else None
    training_stats.init_multiprocessing(rank=rank, sync_device=sync_device)
    if rank > 0:
        custom_ops.verbosity = 'none'
    training_loop.training_loop(rank=rank, **args)


def start(args):
    """Write the training options into the run's folder, and start a process for each GPU."""
    print(f'Starting {args.num_gpus} process(es)...')
    run_dir = pathlib.Path(args.run_dir)
    run_dir.mkdir(parents=True)
    (run_dir / 'training_options.json').write_text(json.dumps(args, indent=2), encoding='utf-8')
    torch.multiprocessing.set_start_method('spawn')     # CUDA does not survive a fork
    with tempfile.TemporaryDirectory() as shared:
        if args.num_gpus > 1:
            torch.multiprocessing.spawn(subprocess_fn, (args, shared), args.num_gpus)
        else:
            subprocess_fn(0, args, shared)


def next_run_id(outdir):
    """One more than the largest number that a folder in `outdir` starts with."""
    folders = [entry.name for entry in os.scandir(outdir) if entry.is_dir()] if os.path.isdir(outdir) else []
    numbers = [int(match.group()) for match in (re.match(r'\d+', name) for name in folders) if match]
    return max(numbers, default=-1) + 1


def print_options(args):
    """All training options as JSON, then the ones that a reader looks for first."""
    dataset = args.training_set_kwargs
    print('\nTraining options:')
    print(json.dumps(args, indent=2))
    print()
    for label, value in (
            ('Output directory', args.run_dir), ('Training data', dataset.path),
            ('Training duration', f'{args.total_kimg} kimg'), ('Number of GPUs', args.num_gpus),
            ('Number of images', dataset.max_size), ('Image resolution', dataset.resolution),
            ('Conditional model', dataset.use_labels), ('Dataset x-flips', dataset.xflip)):
        print(f'{label + ":":<20}{value}')
    print()


class CommaSeparatedList(click.ParamType):
    """a,b,c as a list; nothing, or none, as an empty one."""

    name = 'list'

    def convert(self, value, param, ctx):
        if value is None or isinstance(value, list):
            return value or []
        return [] if value.lower() in ('', 'none') else value.split(',')


# name, type, metavar, help; all but --outdir and --data may be left out.
OPTIONS = (
    ('--outdir', str, 'DIR', 'Folder in which a numbered folder for this run is made'),
    ('--gpus', int, 'INT', 'Processes to train with, one per GPU, a power of two; 1 if left out'),
    ('--snap', int, 'INT', 'Ticks between two snapshots; 50 if left out'),
    ('--metrics', CommaSeparatedList(), 'LIST', 'Metrics at each snapshot, or none; fid50k_full if left out'),
    ('--seed', int, 'INT', 'Start of the random numbers; 0 if left out'),
    ('--data', str, 'PATH', 'Folder or zip archive with the training images'),
    ('--cond', bool, 'BOOL', 'Train on the labels in dataset.json; off if left out'),
    ('--subset', int, 'INT', 'Number of images to draw and train with; all if left out'),
    ('--mirror', bool, 'BOOL', 'Add every image mirrored; off if left out'),
    ('--cfg', click.Choice(['auto', *CONFIGS]), None, 'Set of settings to start from; auto if left out'),
    ('--gamma', float, None, 'Weight of the R1 penalty, instead of that of --cfg'),
    ('--kimg', int, 'INT', 'Length of the training in thousands of images, instead of that of --cfg'),
    ('--batch', int, 'INT', 'Images per step over all GPUs, instead of that of --cfg'),
    ('--aug', click.Choice(['noaug', 'ada', 'fixed']), None, 'How strongly D\'s images are augmented; ada if left out'),
    ('--p', float, None, 'Probability of each augmentation, needs --aug=fixed'),
    ('--target', float, None, 'Sign statistic that ADA holds, needs --aug=ada; 0.6 if left out'),
    ('--augpipe', click.Choice([*PIPELINES]), None, 'Which augmentations there are; bgc if left out'),
    ('--resume', str, 'PKL', 'Network to fine-tune: a file, a URL, or one of ' + ', '.join(PICKLES)),
    ('--freezed', int, 'INT', 'Number of D\'s layers to keep as they are; 0 if left out'),
    ('--fp32', bool, 'BOOL', 'Compute all layers in float32; off if left out'),
    ('--nhwc', bool, 'BOOL', 'Keep float16 layers in channels-last order; off if left out'),
    ('--nobench', bool, 'BOOL', 'Do not let cuDNN try out its algorithms; off if left out'),
    ('--allow-tf32', bool, 'BOOL', 'Let PyTorch compute in TF32; off if left out'),
    ('--workers', int, 'INT', 'Processes that load images; 3 if left out'),
)


def add_options(command):
    """Decorate a function with OPTIONS."""
    for name, kind, metavar, words in reversed(OPTIONS):
        required = name in ('--outdir', '--data')
        command = click.option(name, type=kind, metavar=metavar, help=words, required=required)(command)
    return command


@click.command()
@click.pass_context
@add_options
@click.option('-n', '--dry-run', is_flag=True, help='Show the training options and stop')
def main(ctx, outdir, dry_run, **config_kwargs):
    """Train a GAN on few images, with adaptive augmentation of what the discriminator sees.

    \b
    python train.py --outdir=runs --data=images.zip --mirror=1
    python train.py --outdir=runs --data=images.zip --gpus=4 --cfg=paper1024 --resume=ffhq1024 --snap=10
    """
    dnnlib.util.Logger(should_flush=True)
    try:
        run_desc, args = setup_training_loop_kwargs(**config_kwargs)
    except UserError as err:
        ctx.fail(str(err))

    args.run_dir = os.path.join(outdir, f'{next_run_id(outdir):05d}-{run_desc}')
    print_options(args)
    if dry_run:
        print('Dry run: nothing was written.')
    else:
        start(args)


if __name__ == '__main__':
    main()
