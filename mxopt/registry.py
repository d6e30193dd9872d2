"""Classes by name. What is saved or sent comes back as the class that is registered under its name;
nothing is imported for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mxopt.errors import StatesError, nearest
from mxopt.typing import Plain

Home = tuple[str, str]


class Registry:
    """Classes by name. Errors name their `kind`, and say `how` to register one.

    Classes of different modules may share a name, such as a user's and a built-in one; module and
    qualified name distinguish them. A class that is defined again, as when a notebook cell is run
    twice, replaces the former one.
    """

    def __init__(self, kind: str, how: str) -> None:
        self._kind = kind
        self._how = how
        self._classes: dict[str, dict[Home, type]] = {}

    def add(self, name: str, klass: type) -> None:
        """Registers a class. A name that begins with an underscore can be found, but isn't
        listed."""
        self._classes.setdefault(name, {})[_home(klass)] = klass

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._classes if not name.startswith("_"))

    def describe(self, klass: type) -> Plain:
        """Plain data by which `find` finds `klass`. Raises StatesError if it isn't registered."""
        home = _home(klass)
        for name, classes in self._classes.items():
            if home in classes:
                return {"name": name, "module": home[0], "qualname": home[1]}
        raise StatesError(f"the {self._kind} {klass.__name__} is not registered, so it can't be saved: {self._how}")

    def find(self, described: Any) -> Any:
        """The class that `describe` described, here or in another process.

        The module `__main__` matches any other, since a script's class may be imported from the
        script elsewhere. Raises StatesError unless exactly one class matches.
        """
        name, module, qualname = described["name"], described["module"], described["qualname"]
        classes = self._classes.get(name)
        if not classes:
            raise StatesError(
                f"the saved {self._kind} is {name!r}, which isn't registered here: {nearest(name, self)}; a server"
                " imports the module of one of your own by --import MODULE, and a launched job's by --server-args"
                " '--import MODULE'"
            )
        if (module, qualname) in classes:
            return classes[module, qualname]
        theirs = {home: klass for home, klass in classes.items() if "mxopt" not in (module, home[0])}
        moved = [klass for (m, q), klass in theirs.items() if q == qualname and "__main__" in (m, module)]
        fitting = moved or (list(theirs.values()) if len(classes) == 1 else [])
        if len(fitting) != 1:
            known = ", ".join(".".join(home) for home in classes)
            raise StatesError(
                f"the saved {self._kind} {name!r} is {module}.{qualname}; registered here under this name is {known}"
            )
        return fitting[0]


def same_class(one: type, other: type) -> bool:
    """Whether two classes are the same, or one is the other defined again."""
    return _home(one) == _home(other)


def _home(klass: type) -> Home:
    """Module and qualified name. All of mxopt counts as one module, so its files may change."""
    package = klass.__module__.partition(".")[0]
    return "mxopt" if package == "mxopt" else klass.__module__, klass.__qualname__
