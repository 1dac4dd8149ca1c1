"""The wheel of this project, installed into an environment of its own."""

import shutil
import subprocess
import sys
import sysconfig

from conftest import ROOT


def install(folder):
    """Build the wheel and install it beside the locked packages; give the folder of programs.

    The packages are those of the running interpreter. Its own installation of this project, which
    points to the repository, is not among them.
    """
    source = folder / "source"
    shutil.copytree(
        ROOT / "trainer", source / "trainer", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "equipoise.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist"]
    subprocess.run([*build, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    programs = folder / "venv/bin"
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    (packages / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (wheel,) = (folder / "dist").glob("*.whl")
    options = ["--python", programs / "python", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *options, wheel], check=True)
    accelerate = programs / "accelerate"  # as pip would write it
    accelerate.write_text(
        f"#!{programs / 'python'}\nfrom accelerate.commands.accelerate_cli import main\nmain()\n",
        encoding="utf-8",
    )
    accelerate.chmod(0o755)
    return programs
