"""Stands in for the published image, which cannot be pulled where the tests run.

Debian instead of Ubuntu, Python 3.11 instead of 3.12, no CUDA toolkit; the same vLLM with all that
it depends on, at the same kind of place, with the same entry point.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.real.docker.engine import PATH, Engine, install, which
from tests.support.cache import cache, uv

PUBLISHED = "vllm/vllm-openai:v0.8.4"
SITE = "/usr/local/lib/python3.11/dist-packages"
PACKAGES = ("vllm==0.8.4", "transformers==4.51.1")
"""The oldest Transformers that vLLM 0.8.4 accepts: the harder case."""
SUITE = ("bookworm", "--variant=minbase", "--include=python3,python3-pip,python3-venv")
CONFIG = (
    'ENTRYPOINT ["python3", "-m", "vllm.entrypoints.openai.api_server"]',
    "WORKDIR /vllm-workspace",
)
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def heavy(engine: Engine) -> str:
    """The name of an image with everything that takes long; made once, and kept in the cache."""
    recipe = hashlib.sha256(repr((PACKAGES, SUITE, CONFIG)).encode()).hexdigest()
    name = f"glmpatch-stand-in:{recipe[:12]}"
    if not engine.has(name):
        forget_all(engine)
        # Gigabytes of a run that was killed: no other has the engine now.
        for left in cache().glob("stand-in-*"):
            shutil.rmtree(left)
        install("mmdebstrap")
        with tempfile.TemporaryDirectory(prefix="stand-in-", dir=cache()) as folder:
            root = Path(folder, "root")
            _install_into(root)
            _import(engine, root, name)
            _share(root, Path(engine.inspect(name, ".GraphDriver.Data.UpperDir")))
    return name


def _install_into(root: Path) -> None:
    command = [which("mmdebstrap"), "--quiet", *SUITE[1:], SUITE[0], str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
    assert done.returncode == 0, done.stderr
    # The published image's Python takes packages from pip as well.
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    target = root / SITE[1:]
    uv("pip", "install", "--python-version", "3.11", "--target", str(target), *PACKAGES)


def _import(engine: Engine, root: Path, name: str) -> None:
    changes = [part for line in CONFIG for part in ("--change", line)]
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        done = subprocess.run(
            [which("docker"), "import", *changes, "-", name],
            env=engine.environment(),
            stdin=tar.stdout,
            capture_output=True,
            text=True,
        )
    # 1 where uv made another link to a file meanwhile, for an environment of another run.
    assert tar.returncode in (0, 1), f"tar: exit status {tar.returncode}"
    assert done.returncode == 0, done.stderr


def _share(root: Path, layer: Path) -> None:
    """Let the image have the very files of uv's cache, by links: 7 GB that need no second place.

    Nothing writes to a layer that others lie upon.
    """
    # The engine may have mounted its folder on itself; no link leads from one mount to another.
    code = 'umount --quiet "$1"; cp --archive --link --force "$2/." "$3"'
    folders = (layer.parents[2], root / SITE[1:], layer / SITE[1:])
    command = ["unshare", "--mount", "sh", "-c", code, "sh", *map(str, folders)]
    subprocess.run(command, check=True)


def published(engine: Engine, folder: Path) -> str:
    """The id of an image as a user's machine has it: stale bytecode, this machine's pip settings.

    The bytecode is of the kind that Python never compares with its source.
    """
    folder.mkdir()
    shutil.copyfile(_certificates(), folder / "ca-certificates.crt")
    (folder / "pip.conf").write_text(_pip_settings())
    (folder / "Dockerfile").write_text(f"""\
FROM {heavy(engine)}
COPY ca-certificates.crt {CERTIFICATES}
COPY pip.conf /etc/pip.conf
RUN python3 -c "import py_compile; py_compile.compile(\\
    '{SITE}/vllm/model_executor/models/glm4.py', doraise=True, \\
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
""")
    engine.build(folder, "glmpatch-published")
    return engine.inspect("glmpatch-published", ".Id")


def changed(engine: Engine, folder: Path, base: str, model_file: bytes) -> str:
    """The id of an image like ``base`` whose vLLM has another model file."""
    folder.mkdir()
    (folder / "glm4.py").write_bytes(model_file)
    (folder / "Dockerfile").write_text(f"""\
FROM {base}
COPY glm4.py {SITE}/vllm/model_executor/models/
""")
    engine.build(folder, "glmpatch-changed")
    return engine.inspect("glmpatch-changed", ".Id")


def forget_all(engine: Engine, *, but: str = "") -> None:
    """Remove all from the tests' engine except the image named ``but``."""
    engine.docker("container", "prune", "--force")
    names = engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    for name in names:
        if name != but and "<none>" not in name:
            engine.docker("image", "rm", "--force", name)
    engine.docker("image", "prune", "--force")
    engine.docker("builder", "prune", "--all", "--force")


def _certificates() -> str:
    names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    named = [os.environ[name] for name in names if name in os.environ]
    return next(path for path in (*named, CERTIFICATES) if Path(path).is_file())


def _pip_settings() -> str:
    """Which registry, and how to reach it; not the paths of this machine."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    )
    settings = {"cert": CERTIFICATES}
    for line in listing.stdout.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout"):
            words = [word for word in value.strip("'\"").split() if "file:" not in word]
            if words:
                settings[key] = " ".join(words)
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
