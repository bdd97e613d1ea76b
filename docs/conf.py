"""The docs site: the Markdown pages where they are, and a reference from the docstrings. 'make docs' builds it.

The source folder is the repository's root, so that a link between pages holds here and in the repository.
"""

from importlib.metadata import version as installed

from sphinx.application import Sphinx

project = "canonistia"
version = release = installed("canonistia")
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "data/README.md", "models/README.md", "models/scene15/MODEL_CARD.md"]
exclude_patterns = [".*", "build", "dist", "runs"]  # large folders without pages are not walked
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = False  # annotations name types of other libraries, whose pages are not here
myst_heading_anchors = 3
highlight_language = "none"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = False

html_theme = "furo"
html_title = f"canonistia {version}"
html_permalinks_icon = "#"
html_copy_source = False
html_show_sphinx = False
templates_path = ["theme"]
html_additional_pages = {"index": "to_the_first_page.html"}

# Sphinx requires every page in a table of contents; the README must do without one elsewhere.
_CONTENTS = """
```{toctree}
:hidden:
:caption: Use

docs/results
docs/service
docs/scale
docs/commands
models/README
models/scene15/MODEL_CARD
```

```{toctree}
:hidden:
:caption: Train

docs/training
data/README
```

```{toctree}
:hidden:
:caption: Reference

docs/reference
docs/decisions
docs/experiments
```

```{toctree}
:hidden:
:caption: Project

CONTRIBUTING
SECURITY
CHANGELOG
```
"""


def _add_contents(_: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += _CONTENTS


def setup(app: Sphinx) -> None:
    """Register what is done to a page before it is parsed."""
    app.connect("source-read", _add_contents)
