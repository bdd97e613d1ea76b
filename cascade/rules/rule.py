"""The base of all rules of a bundle: plain data with a name."""

import msgspec


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="rule"):
    """A rule of the bundle; its name is stored in the field ``rule``."""

    @property
    def name(self) -> str:
        """Return the rule's name."""
        return str(self.__struct_config__.tag)
