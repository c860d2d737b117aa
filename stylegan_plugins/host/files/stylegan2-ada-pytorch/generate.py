"""Make images with a trained generator.

This script stands in for the generate.py of stylegan2-ada-pytorch in a host that was assembled without GitHub. It takes
the same options and writes the same files; its text is not NVIDIA's.
"""

import os
import re

import click
import dnnlib
import legacy
import numpy as np
import PIL.Image
import torch


def num_range(text):
    """Seeds as written on the command line: '1,5,9', or '3-6' for 3, 4, 5 and 6."""
    ends = re.fullmatch(r'(\d+)-(\d+)', text)
    if ends:
        first, last = map(int, ends.groups())
        return list(range(first, last + 1))
    return [int(number) for number in text.split(',')]


def save_image(img, path):
    """Write the first image of a batch with values from -1 to 1."""
    pixels = (img.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)[0].cpu().numpy()
    PIL.Image.fromarray(pixels, 'RGB').save(path)


def class_label(ctx, G, class_idx, device):
    """The label that every image gets, [1, C]; an unconditional network has C = 0 and takes none."""
    label = torch.zeros([1, G.c_dim], device=device)
    if G.c_dim == 0:
        if class_idx is not None:
            print(f'Note: the network has no classes, --class={class_idx} changes nothing')
    elif class_idx is None:
        ctx.fail(f'the network was trained on {G.c_dim} classes; say which one to draw with --class')
    else:
        label[:, class_idx] = 1
    return label


@click.command()
@click.pass_context
@click.option('--network', 'network_pkl', required=True, help='Snapshot: a file or a URL')
@click.option('--seeds', type=num_range, help='Which images: 1,5,9 or 3-6')
@click.option('--trunc', 'truncation_psi', type=float, default=1, show_default=True,
              help='Distance from the average image, 1 = no truncation')
@click.option('--class', 'class_idx', type=int, help='Class to draw, for a network trained on labels')
@click.option('--noise-mode', type=click.Choice(['const', 'random', 'none']), default='const', show_default=True,
              help='Noise inputs of the layers')
@click.option('--projected-w', type=str, metavar='FILE', help='Draw what projector.py found, instead of seeds')
@click.option('--outdir', type=str, required=True, metavar='DIR', help='Folder for the images')
def generate_images(ctx, network_pkl, seeds, truncation_psi, noise_mode, outdir, class_idx, projected_w):
    """Draw images, one per seed, or one per latent of a projection.

    \b
    python generate.py --outdir=out --seeds=0-35 --trunc=0.7 --network=network-snapshot-001000.pkl
    python generate.py --outdir=out --projected-w=projected_w.npz --network=network-snapshot-001000.pkl
    """
    print(f'Loading networks from "{network_pkl}"...')
    device = torch.device('cuda')
    with dnnlib.util.open_url(network_pkl) as f:
        G = legacy.load_network_pkl(f)['G_ema'].to(device)
    os.makedirs(outdir, exist_ok=True)

    if projected_w is not None:
        if seeds is not None:
            print('Note: with --projected-w, --seeds changes nothing')
        ws = torch.tensor(np.load(projected_w)['w'], device=device)
        if ws.shape[1:] != (G.num_ws, G.w_dim):
            ctx.fail(f'--projected-w: latents of shape {list(ws.shape[1:])}, the network takes {[G.num_ws, G.w_dim]}')
        for idx, w in enumerate(ws):
            save_image(G.synthesis(w.unsqueeze(0), noise_mode=noise_mode), f'{outdir}/proj{idx:02d}.png')
        return

    if seeds is None:
        ctx.fail('say what to draw with --seeds or --projected-w')
    label = class_label(ctx, G, class_idx, device)
    for done, seed in enumerate(seeds):
        print(f'Generating image for seed {seed} ({done}/{len(seeds)}) ...')
        z = torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim)).to(device)
        img = G(z, label, truncation_psi=truncation_psi, noise_mode=noise_mode)
        save_image(img, f'{outdir}/seed{seed:04d}.png')


if __name__ == '__main__':
    generate_images()
