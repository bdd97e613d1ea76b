"""The errors that the command line and the page show as one message."""

from cascade.terminal import printable


class CanonistiaError(Exception):
    """An error that the user can correct: the message says what was found, what was expected and what to do.

    As text it is one printable line, whatever the names in it are.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(CanonistiaError):
    """Inputs that do not exist or options that do not go together; ``option`` is the one that is at fault, if one is.

    The command line exits with status 2.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class PictureError(CanonistiaError):
    """One picture cannot be read. The others are not affected."""


class UnknownFormatError(PictureError):
    """The file is not a picture of a supported format."""


class TooManyPixelsError(PictureError):
    """The picture has more pixels than the limit."""
