"""What each family is held against: one file per family, found by its name.

A file holds `reference = Reference(...)`. `REFERENCES` gathers them: the model_type -> its Reference.
"""

import importlib
import pkgutil

from families.reference import Reference

FILES: dict[str, Reference] = {
    module.name: importlib.import_module(f"families.{module.name}").reference
    for module in pkgutil.iter_modules(__path__)
    if module.name not in ("reference", "shapes", "tiny")
}

REFERENCES: dict[str, Reference] = {reference.model_type or name: reference for name, reference in FILES.items()}

CASES: dict[str, Reference] = {
    name: reference for reference in REFERENCES.values() for name in (*reference.cases, *reference.own)
}
"""Every case -> the reference that holds it."""
