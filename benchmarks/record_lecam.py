"""Record results of the authors' LeCam as tests/golden/lecam.npz.

    python benchmarks/record_lecam.py --repo DIR --out tests/golden

The directory is a checkout of google/lecam-gan at the commit below. As in record_golden.py, their code runs where it
lies and only numbers are written. Their loss for StyleGAN2 is TensorFlow 1 and is run with the few functions of
TensorFlow that it calls, made of PyTorch's; a byte-order mark in the middle of the file is passed over."""

import argparse
import contextlib
import pathlib
import sys
import types

import torch
from record_golden import check_checkout, load_file, save

COMMIT = "f9af9485eda4637b25e694c142ce8e6992eb7243"
STYLEGAN2, BIGGAN = "stylegan2/lecam_loss.py", "biggan_cifar/losses.py"
STEPS, N = 5, 6


def tensorflow():
    """Put stand-ins for the modules that the file imports into sys.modules. A variable is made once, as in a graph."""
    variables = {}
    tf = types.ModuleType("tensorflow")
    tf.Variable = lambda value, name, **kwargs: variables.setdefault(name, {"a": torch.tensor(value).double(), "t": 0})
    tf.VariableSynchronization = types.SimpleNamespace(ON_READ=None)
    tf.VariableAggregation = types.SimpleNamespace(MEAN=None)
    tf.float32, tf.square, tf.reduce_mean = None, torch.square, torch.mean
    tf.stop_gradient = lambda value: value.detach()
    tf.nn = types.SimpleNamespace(relu=torch.relu)
    tf.name_scope = lambda name: contextlib.nullcontext()

    def assign_moving_average(variable, value, decay, zero_debias):
        """Update an average as TensorFlow documents it: the biased average over 1 - decay^t."""
        assert zero_debias
        variable["t"] += 1
        variable["a"] = decay * variable["a"] + (1 - decay) * value
        return variable["a"] / (1 - decay ** variable["t"])

    moving_averages = types.ModuleType("tensorflow.python.training.moving_averages")
    moving_averages.assign_moving_average = assign_moving_average
    training = types.ModuleType("tensorflow.python.training")
    training.moving_averages = moving_averages
    sys.modules |= {"tensorflow": tf, "tensorflow.python": types.ModuleType("tensorflow.python")}
    sys.modules |= {"tensorflow.python.training": training}


def record_stylegan2(repo):
    """Record the penalty, and its gradients, of given logits in several iterations."""
    tensorflow()
    module = types.ModuleType("lecam_loss")
    source = (repo / STYLEGAN2).read_text(encoding="utf-8").replace("\ufeff", "")
    exec(compile(source, STYLEGAN2, "exec"), module.__dict__)
    record = {}
    torch.manual_seed(0)
    for step in range(STEPS):
        logits = torch.randn([2, N, 1], dtype=torch.float64) + torch.tensor([0.6, -0.4]).view(2, 1, 1)
        logits.requires_grad_(True)
        real, generated = (types.SimpleNamespace(scores=scores) for scores in logits)
        loss = module.lecamreg(real, generated)
        (gradient,) = torch.autograd.grad(loss, [logits])
        record |= {f"stylegan2/{step}/logits": logits, f"stylegan2/{step}/loss": loss}
        record[f"stylegan2/{step}/grad"] = gradient
    return record


def record_biggan(repo):
    """Record the penalty of the BigGAN code for given averages, and its gradients."""
    penalty = load_file(repo / BIGGAN).lecam_reg
    torch.manual_seed(1)
    logits = torch.randn([2, N, 1], dtype=torch.float64, requires_grad=True)
    ema = types.SimpleNamespace(D_real=0.3, D_fake=-0.2)
    loss = penalty(logits[0], logits[1], ema)
    (gradient,) = torch.autograd.grad(loss, [logits])
    record = {"biggan/logits": logits, "biggan/loss": loss, "biggan/grad": gradient}
    return record | {"biggan/alpha_real": ema.D_real, "biggan/alpha_generated": ema.D_fake}


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/lecam.npz from the authors' repository.")
    parser.add_argument("--repo", metavar="DIR", type=pathlib.Path, required=True, help="Checkout of google/lecam-gan")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, [STYLEGAN2, BIGGAN])
    torch.set_num_threads(1)
    save(args.out / "lecam.npz", {"commit": COMMIT, **record_stylegan2(args.repo), **record_biggan(args.repo)})


if __name__ == "__main__":
    main()
