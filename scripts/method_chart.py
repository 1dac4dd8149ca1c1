"""Draw the flow chart "which method first" from the rules of `equipoise audit`, as SVG."""

from html import escape
from textwrap import wrap

from trainer.audit.advice import RULES
from trainer.audit.facts import Facts

THEMES = {
    "light": {"text": "#1f2328", "line": "#57606a", "question": "#eaf2fd", "answer": "#e6f4ea"},
    "dark": {"text": "#e6edf3", "line": "#9198a1", "question": "#1c2f4a", "answer": "#193725"},
}
FIRST = "Correct the faults in the data that the audit lists"
LAST = "In each case, measure what helps on your rows:\nequipoise compare"
FACTS = Facts(imbalance_ratio=5, minority_label="rare", num_classes=3, smallest_rows=9)
WIDTH, LEFT, RIGHT, STEP, HEIGHT = 900, 20, 470, 104, 68
BOX_WIDTH, LINE_HEIGHT = 390, 19


def charts() -> dict[str, str]:
    """Return {theme: SVG}."""
    return {theme: chart(colors) for theme, colors in THEMES.items()}


def chart(colors: dict[str, str]) -> str:
    """Return the chart: a column of questions, and beside each what to try after a yes."""
    rules = [rule for rule in RULES if rule.kind == "method"]
    parts = [box(LEFT, 0, FIRST.split("\n"), colors["question"], colors)]
    for row, rule in enumerate(rules[:-1], start=1):
        question = wrap(f"{rule.condition[0].upper()}{rule.condition[1:]}?", 46)
        parts += [
            down(row, "no" if row > 1 else "", colors),
            box(LEFT, row, question, colors["question"], colors),
            across(row, colors),
            box(RIGHT, row, settings(rule), colors["answer"], colors),
        ]
    last = len(rules)
    parts += [down(last, "no", colors)]
    parts += [
        box(LEFT, last, settings(rules[-1]), colors["answer"], colors),
        down(last + 1, "", colors),
        box(LEFT, last + 1, LAST.split("\n"), colors["question"], colors),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {STEP * (last + 2)}"'
        f' font-family="sans-serif" font-size="14.5" fill="{colors["text"]}">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def settings(rule) -> list[str]:
    """Return the settings that a rule proposes, in lines that fit a box."""
    lines = rule.settings(FACTS).split("\n")
    return [part for line in lines for part in wrap(line, 48)]


def box(x: int, row: int, lines: list[str], fill: str, colors: dict[str, str]) -> str:
    """Return a box with centred text."""
    top = row * STEP + (STEP - HEIGHT) // 2
    first = top + HEIGHT / 2 + 5 - LINE_HEIGHT * (len(lines) - 1) / 2
    text = "".join(
        f'<text x="{x + BOX_WIDTH // 2}" y="{first + LINE_HEIGHT * number:g}"'
        f' text-anchor="middle">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<rect x="{x}" y="{top}" width="{BOX_WIDTH}" height="{HEIGHT}" rx="8" fill="{fill}"'
        f' stroke="{colors["line"]}"/>{text}'
    )


def down(row: int, word: str, colors: dict[str, str]) -> str:
    """Return the arrow to a row from the row above."""
    x, end = LEFT + BOX_WIDTH // 2, row * STEP + (STEP - HEIGHT) // 2
    label = f'<text x="{x + 12}" y="{end - 13}">{word}</text>' if word else ""
    return (
        arrow(f"M{x} {end - (STEP - HEIGHT)}V{end}", f"M{x - 5} {end - 8}l5 8l5 -8", colors) + label
    )


def across(row: int, colors: dict[str, str]) -> str:
    """Return the arrow from a question to its answer."""
    y = row * STEP + STEP // 2
    lines = arrow(f"M{LEFT + BOX_WIDTH} {y}H{RIGHT}", f"M{RIGHT - 8} {y - 5}l8 5l-8 5", colors)
    return f'{lines}<text x="{LEFT + BOX_WIDTH + 16}" y="{y - 7}">yes</text>'


def arrow(line: str, head: str, colors: dict[str, str]) -> str:
    """Return a line and the head at its end."""
    return f'<path d="{line}{head}" fill="none" stroke="{colors["line"]}" stroke-width="1.5"/>'
