"""Generate docs/commands.md, the command reference, from the output of `--help`: python docs/commands.py."""

from pathlib import Path

import click

from saliency_pipeline.cli.main import salpipe

WIDTH = 100
INTRODUCTION = """\
# Commands

Standard output carries the result, as one JSON object with `--json`; everything else goes to standard error, and
progress bars are shown on a terminal only. The exit code is one of:

| code | meaning |
|---|---|
| 0 | success |
| 1 | an error; its message is one line and names the remedy |
| 2 | wrong usage |
| 3 | more images were rejected than `--max-rejects` allows |
| 4 | a shard or the manifest is damaged, or `audit --fail-on-leak` found leaks |
| 130 | interrupted; the same command resumes |

## Settings from a file

`--config FILE.toml` sets defaults for the parameters of a command; the command line takes precedence. A key is the
long name of an option without its dashes, or the name of an argument in lower case; a value is parsed as if it were
given on the command line. Keys at the top level apply to every command that reads the file, those in a table named
after a command only to that command. An option that may be repeated takes a list.

```toml
[generate]
method = ["gradcam", "gradient"]
size = 224
max-rejects = "5%"
```
"""


def help_of(command: click.Command, name: str, parent: click.Context | None = None) -> str:
    """The output of `--help` at a fixed width."""
    context = {"terminal_width": WIDTH, "max_content_width": WIDTH, **command.context_settings}
    with click.Context(command, info_name=name, parent=parent, **context) as ctx:
        return command.get_help(ctx)


def page() -> str:
    """The text of docs/commands.md."""
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
