"""Write the configs that come with the package: `init --example quickstart`."""

import re
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from trainer.config.config import check_config
from trainer.config.yaml_source import YamlSource, read_values
from trainer.display.terminal import console
from trainer.errors import ConfigError, did_you_mean, listing
from trainer.files.durable import aside

CHECKOUT = Path(__file__).resolve().parents[2]
INSTALLED = ("share", "equipoise", "configs")
PACKAGE = re.compile(r"package:([\w.-]+==[\w.+!-]+)/")
SCHEMA_LINE = "# yaml-language-server: $schema=schema.json\n"


def shipped() -> dict[str, Path]:
    """Return {name: file} of the configs in the checkout, or of the installed package."""
    if (CHECKOUT / "configs" / "schema.json").is_file():
        paths = sorted((CHECKOUT / "configs").glob("*.yaml"))
        return {path.stem: path for path in paths}
    try:
        files = distribution("equipoise").files or []
    except PackageNotFoundError:
        files = []
    return {
        file.stem: Path(str(file.locate()))
        for file in files
        if file.suffix == ".yaml" and file.parts[-4:-1] == INSTALLED
    }


def text_of(name: str) -> str:
    """Return the text of a shipped config.

    Raises:
        ConfigError: there is none of this name.
    """
    found = shipped()
    if name not in found:
        raise ConfigError(
            f"--example {name}: no such example; known: {listing(found)}."
            f"{did_you_mean(name, found)}"
        )
    return found[name].read_text(encoding="utf-8").removeprefix(SCHEMA_LINE)


def write_example(name: str, target: Path) -> None:
    """Write a shipped config, and print what it needs and the command that runs it."""
    text = text_of(name)
    config = check_config(YamlSource(str(target), read_values(text)))
    target.parent.mkdir(parents=True, exist_ok=True)
    with aside(target) as partial:
        partial.write_text(text, encoding="utf-8")
    packages = list(dict.fromkeys(PACKAGE.findall(text)))
    console.print(f"Written: {target}. Its head says what it is for. Next:")
    if packages:
        console.print(f"  pip install --no-deps {' '.join(packages)}")
    is_comparison = "compare" in config.model_fields_set
    command = "compare" if is_comparison else "train"
    console.print(f"  equipoise {command} {shlex.quote(str(target))}")
