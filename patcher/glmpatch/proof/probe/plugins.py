"""vLLM's plugins, loaded as a server loads them, and what they leave of the file to be proven."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from typing import Any

from .language import N_
from .outcome import CannotRun

GROUPS = ("vllm.general_plugins", "vllm.platform_plugins")


def load() -> None:
    """Load the general plugins; raises CannotRun where one of them ends in an error.

    A server goes on without a plugin that cannot be imported: then what is proven here would not
    be what runs once the plugin is repaired.
    """
    from vllm.plugins import load_general_plugins

    for plugin in _wanted("vllm.general_plugins"):
        try:
            plugin.load()
        except (Exception, SystemExit) as error:
            raise _broken(plugin, error) from error
    try:
        load_general_plugins()
    except (Exception, SystemExit) as error:
        raise _broken(_raised_by(error), error) from error


def check_served(proof: dict[str, Any], root: str) -> None:
    """vLLM's registry must serve the model by the file to be proven; raises CannotRun."""
    name, module = proof["architecture"], proof["module"]
    wanted = os.path.join(root, *proof["file"].split("/"))
    check_registered(name, module)
    spec = importlib.util.find_spec(module)
    found = spec.origin if spec and spec.origin else ""
    if not (found and os.path.exists(wanted) and os.path.samefile(found, wanted)):
        raise _other(name, found or N_("none"), "")
    replaced = _replaced(module, root)
    if replaced:
        raise _other(name, *replaced)


def check_registered(name: str, module: str) -> None:
    """vLLM's registry must name that module's class of that name; raises CannotRun."""
    from vllm.model_executor.models.registry import ModelRegistry

    entry = ModelRegistry.models.get(name)
    if entry is None:
        raise CannotRun(
            N_("vLLM's registry has no {name}", name=name),
            N_("look at the plugins, and at vLLM's registry.py"),
        )
    model_class = getattr(entry, "model_cls", None)
    by = getattr(entry, "module_name", None) or getattr(model_class, "__module__", "")
    called = getattr(entry, "class_name", None) or getattr(model_class, "__name__", "")
    if (by, called) != (module, name):
        raise _other(name, f"{by}:{called}", by)


def _replaced(module: str, root: str) -> tuple[str, str] | None:
    """A function of the module's classes that comes from outside vLLM, and whence."""
    inside = os.path.realpath(os.path.join(root, "vllm")) + os.sep
    loaded = sys.modules.get(module)
    for each in list(vars(loaded).values()) if loaded else ():
        if isinstance(each, type) and each.__module__ == module:
            for name, value in list(vars(each).items()):
                code = getattr(value, "__code__", None)
                if code and not os.path.realpath(code.co_filename).startswith(inside):
                    what = N_(
                        "{function} is replaced by {file}",
                        function=f"{each.__name__}.{name}",
                        file=code.co_filename,
                    )
                    return what, getattr(value, "__module__", "") or ""
    return None


def _other(architecture: str, where: str, module: str | None) -> CannotRun:
    top = (module or "").partition(".")[0]
    plugin = next((p for group in GROUPS for p in _wanted(group) if _top(p) == top), None)
    if plugin is None:
        return CannotRun(
            N_(
                "vLLM serves {architecture} by another file: {where}",
                architecture=architecture,
                where=where,
            ),
            N_("remove what puts another model in its place"),
        )
    return CannotRun(
        N_(
            "vLLM serves {architecture} by another file: {where} (plugin {plugin})",
            architecture=architecture,
            where=where,
            plugin=plugin.name,
        ),
        N_(
            "the repair of vLLM's own file would change nothing; without the plugin: {setting}",
            setting=_without(plugin),
        ),
    )


def _broken(plugin: Any, error: BaseException) -> CannotRun:
    told = f"{type(error).__name__}: {error}"
    if plugin is None:
        return CannotRun(
            N_("a plugin of vLLM cannot be loaded: {error}", error=told),
            N_("VLLM_PLUGINS= leaves all out"),
        )
    return CannotRun(
        N_(
            "vLLM's plugin {name} ({value}) cannot be loaded: {error}",
            name=plugin.name,
            value=plugin.value,
            error=told,
        ),
        N_("repair it, or leave it out: {setting}", setting=_without(plugin)),
    )


def _without(plugin: Any) -> str:
    """The setting that leaves one plugin out and the others in."""
    names = [p.name for group in GROUPS for p in _wanted(group) if p.name != plugin.name]
    return "VLLM_PLUGINS=" + ",".join(dict.fromkeys(names))


def _raised_by(error: BaseException) -> Any:
    """The plugin whose code the error passed through."""
    trace, modules = error.__traceback__, []
    while trace:
        modules.append(str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        trace = trace.tb_next
    for plugin in _wanted("vllm.general_plugins"):
        if _top(plugin) in modules:
            return plugin
    return None


def _wanted(group: str) -> list[Any]:
    """The plugins of a group that VLLM_PLUGINS lets in."""
    found: Any = importlib.metadata.entry_points()
    if hasattr(found, "select"):
        plugins = list(found.select(group=group))
    else:  # Python 3.9
        plugins = list(found.get(group, ()))
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is None:
        return plugins
    return [plugin for plugin in plugins if plugin.name in allowed.split(",")]


def _top(plugin: Any) -> str:
    return str(plugin.value).partition(":")[0].partition(".")[0]
