"""Write the committed files that are derived from code: `python scripts/generate.py`.

trainer/config/sections/training_arguments.json
    names, types and choices of transformers' TrainingArguments, so that config errors need no torch
configs/schema.json              JSON Schema of the YAML, for editors
README.md                        the config reference between its two markers
"""

import dataclasses
import enum
import json
import types
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- config reference: begin -->", "<!-- config reference: end -->"
NAMES = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    dict: "dict",
    list: "list",
    type(None): "null",
}


def training_arguments() -> dict[str, dict[str, list[str]]]:
    """{name: {types, choices?}} of the installed TrainingArguments."""
    from transformers import TrainingArguments

    specs = {}
    for field in dataclasses.fields(TrainingArguments):
        branches = (
            typing.get_args(field.type)
            if isinstance(field.type, types.UnionType)
            or typing.get_origin(field.type) is typing.Union
            else [field.type]
        )
        enums = [b for b in branches if isinstance(b, type) and issubclass(b, enum.Enum)]
        names = {NAMES.get(typing.get_origin(b) or b, "str") for b in branches}
        if field.default is None:
            names.add("null")
        spec = {
            "types": [
                name
                for name in ("bool", "int", "float", "str", "dict", "list", "null")
                if name in names
            ]
        }
        if enums and enums[0].__name__ != "DebugOption":
            spec["choices"] = [member.value for member in enums[0]]
        specs[field.name] = spec
    return specs


def config_reference() -> str:
    """Markdown tables of every section, key, default and meaning."""
    from trainer.config.config import Config
    from trainer.config.sections.training import OWNED_KEYS, TRAINING_DEFAULTS, training_specs

    def section(name: str, model: typing.Any) -> list[str]:
        lines = [
            f"### `{name}`",
            "",
            " ".join(model.__doc__.split()),
            "",
            "| key | default | meaning |",
            "| --- | --- | --- |",
        ]
        nested = []
        for key, field in model.model_fields.items():
            inner = [
                m
                for m in (field.annotation, *typing.get_args(field.annotation))
                if hasattr(m, "model_fields")
            ]
            if inner:
                nested.append((f"{name}.{key}", inner[0]))
                default = "see below"
            elif field.is_required():
                default = "required"
            else:
                default = f"`{json.dumps(field.get_default(call_default_factory=True))}`"
            lines.append(
                f"| `{key}` | {default} | {' '.join(field.description.split()).replace('|', '/')} |"
            )
        lines.append("")
        for inner_name, inner_model in nested:
            lines += section(inner_name, inner_model)
        return lines

    lines: list[str] = []
    for key, field in Config.model_fields.items():
        model = next(
            m
            for m in (field.annotation, *typing.get_args(field.annotation))
            if hasattr(m, "model_fields")
        )
        if key != "training":
            lines += section(key, model)
    lines += [
        "### `training`",
        "",
        f"{len(training_specs())} keys: transformers' `TrainingArguments` under their own "
        "names, with its defaults but for:",
        "",
    ]
    lines += ["| key | default |", "| --- | --- |"]
    lines += [f"| `{key}` | `{json.dumps(value)}` |" for key, value in TRAINING_DEFAULTS.items()]
    lines += ["| `bf16` | on if the hardware gains from it, otherwise off |", ""]
    lines += [
        "Decided elsewhere and refused here: "
        + ", ".join(f"`{key}`" for key in sorted(OWNED_KEYS))
        + ".",
        "",
    ]
    return "\n".join(lines)


def generated() -> dict[Path, str]:
    """{path: text} of every derived file."""
    from trainer.config.config import json_schema

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    head, tail = readme.split(BEGIN)[0], readme.split(END)[1]
    return {
        ROOT / "configs/schema.json": json.dumps(json_schema(), indent=1) + "\n",
        ROOT / "README.md": f"{head}{BEGIN}\n\n{config_reference()}{END}{tail}",
    }


def main() -> None:
    """Write the files; the snapshot first, since the config models are built from it."""
    snapshot = ROOT / "trainer/config/sections/training_arguments.json"
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(spec)}" for name, spec in training_arguments().items()
    )
    snapshot.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
