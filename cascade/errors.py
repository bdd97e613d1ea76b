"""The one error that the command line and the page turn into words."""


class CanonistiaError(Exception):
    """Something the user can mend: the message says what was found, what was expected and what to do."""


class PictureError(CanonistiaError):
    """One picture cannot be read. The others go on."""


class UnknownFormatError(PictureError):
    """The file is no picture of a format that is read here."""


class TooManyPixelsError(PictureError):
    """The picture has more pixels than the limit."""
