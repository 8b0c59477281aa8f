"""The pages' templates: self-contained HTML, made of figures alone."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def page_templates() -> Environment:
    """The templates of ``templates/``: everything is escaped, and a name that is not given is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
