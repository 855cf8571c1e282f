"""Writes docs/commands.md, the command reference, from what `--help` prints: python docs/commands.py."""

from pathlib import Path

import click

from saliency_pipeline.cli.main import salpipe

WIDTH = 100
INTRODUCTION = """\
# Commands

Standard output carries the result, as one JSON object under `--json`; everything else goes to standard error, and
progress bars are drawn on a terminal only. Every command ends with one of these codes:

| code | meaning |
|---|---|
| 0 | done |
| 1 | an error; its one line says what to do about it |
| 2 | wrong usage |
| 3 | more images were rejected than `--max-rejects` allows |
| 4 | a shard or the manifest is damaged |
| 130 | interrupted; the same command goes on where it stopped |

## Settings from a file

`--config FILE.toml` supplies defaults for the parameters of a command, and what is typed wins over it. A key is the
long name of an option without its dashes, or the name of an argument in lower case; a value is read exactly as if it
had been typed. Keys at the top of the file are for whichever command reads it; those in a table named after a command
are for that one alone. An option that may be repeated takes a list.

```toml
[generate]
method = ["gradcam", "gradient"]
size = 224
max-rejects = "5%"
```
"""


def help_of(command: click.Command, name: str, parent: click.Context | None = None) -> str:
    """What `--help` prints, at one width whatever the terminal."""
    context = {"terminal_width": WIDTH, "max_content_width": WIDTH, **command.context_settings}
    with click.Context(command, info_name=name, parent=parent, **context) as ctx:
        return command.get_help(ctx)


def page() -> str:
    """The whole of docs/commands.md."""
    sections = [INTRODUCTION, section("salpipe", help_of(salpipe, "salpipe"))]
    with click.Context(salpipe, info_name="salpipe", **salpipe.context_settings) as ctx:
        for name in salpipe.list_commands(ctx):
            command = salpipe.get_command(ctx, name)
            assert command is not None
            sections.append(section(f"salpipe {name}", help_of(command, name, ctx)))
    return "\n".join(sections)


def section(title: str, text: str) -> str:
    """One command: its name and its help page."""
    return f"## {title}\n\n```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(page(), encoding="utf-8")
