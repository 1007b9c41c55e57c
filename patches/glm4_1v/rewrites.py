"""The defects of ``glm4_1v.py``: a budget that is too small, a dummy video that is too short, and
a projection that no quantisation knows by its name."""

from __future__ import annotations

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.edits import Edits, add_keyword
from glmpatch.source.snippets import Snippet

INFO, BUILDER = "Glm4vProcessingInfo", "Glm4vDummyInputsBuilder"
SIZE, VIDEO_SIZE = "get_image_size_with_most_features", "get_video_size_with_most_features"
LIMIT = "_get_image_max_pixels"

OWN_LIMIT = """\
def _get_image_max_pixels(self) -> int:
    from packaging.version import Version
    from transformers import __version__
    # Before, its image processor went by one limit, whatever its size said.
    if Version(__version__) < Version("4.56"):
        return 28 * 28 * 2 * 6144
    return self.get_image_processor().size["longest_edge"]
"""
"""Upstream has such a method from 0.17.0 on."""

LARGEST = """\
def get_image_size_with_most_features(self) -> ImageSize:
    vision_config = self.get_hf_config().vision_config
    unit = vision_config.patch_size * vision_config.spatial_merge_size
    max_pixels = self._get_image_max_pixels()
    most = max_pixels // (vision_config.temporal_patch_size * unit**2)
    # Neither side may be more than 200 times the other.
    sizes = [
        ImageSize(width=min(most // rows, 200 * rows) * unit, height=rows * unit)
        for rows in range(math.isqrt(most), 0, -1)
    ]
    sizes.append(ImageSize(width=200 * unit, height=unit))

    def num_tokens(size: ImageSize) -> int:
        return self._get_vision_info(
            image_width=size.width,
            image_height=size.height,
            num_frames=1,
            max_image_pixels=max_pixels,
        )[1]

    return max(sizes, key=num_tokens)
"""
"""Most of them have the area of the limit already; the last one is for a limit below 200 tokens."""

TARGET = Snippet(f"WIDTH, HEIGHT = self.info.{SIZE}()")
TAKEN = Snippet(f"self.{SIZE}()")
FRAMES = Snippet("num_frames = max(num_frames, 2)", "num_frames = max(2, num_frames)")
DUMMY = Snippet(
    "video = np.full(SHAPE, 255, dtype=np.uint8)", "video = np.zeros(SHAPE, dtype=np.uint8)"
)


def encoder_budget(module: cst.Module) -> list[Place]:
    """A square of 9999999 x 9999999, as large as the limit for videos or pictures leaves it → the
    shape with the most tokens; what videos are measured by stays as it is."""
    info = tree.find_class(module, INFO)
    size = tree.find_function(info, SIZE)
    squares = [each for each in tree.calls(size, "self._get_vision_info") if _is_square(each)]
    if not squares:
        return [Place(_returned(size))]
    edits: dict[cst.CSTNode, cst.CSTNode | None] = {}
    text = LARGEST
    if all(each.name.value != LIMIT for each in tree.find_all(info, cst.FunctionDef)):
        edits.update(_count_pictures(info))
        text = OWN_LIMIT + LARGEST
    blank = [cst.EmptyLine(indent=False)]
    methods = [each.with_changes(leading_lines=blank) for each in cst.parse_module(text).body]
    body = list(info.body.body)
    at = body.index(size)
    body[at : at + 1] = [size.with_changes(name=cst.Name(VIDEO_SIZE)), *methods]
    edits[info.body] = info.body.with_changes(body=body)
    frames = tree.find_function(info, "_get_max_video_frames")
    for found in TAKEN.find(frames):
        assert isinstance(found.node, cst.Call)
        edits[found.node.func] = cst.parse_expression(f"self.{VIDEO_SIZE}")
    edits.update(_measure_videos(tree.find_method(module, BUILDER, "get_dummy_mm_data")))
    return [Place(squares[0], broken=True, edits=edits)]


def _is_square(call: cst.Call) -> bool:
    """Whether it asks for sides that are numbers, and the same."""
    sides = [tree.argument(call, at, f"image_{n}") for at, n in enumerate(("width", "height"))]
    texts = {tree.text(each.value) for each in sides if each is not None}
    return len(texts) == 1 and texts.pop().isdigit()


def _count_pictures(info: cst.ClassDef) -> Edits:
    """A picture is one frame, and its limit the processor's."""
    count = tree.find_function(info, "get_num_image_tokens")
    calls = tree.calls(count, "self._get_vision_info")
    if len(calls) != 1:
        raise Unrecognized(_("get_num_image_tokens does not ask _get_vision_info once"), count)
    (call,) = calls
    limit = tree.argument(call, 4, "max_image_pixels")
    if limit is None:
        raise Unrecognized(_("get_num_image_tokens names no limit"), call)
    new = call if tree.argument(call, 2, "num_frames") else add_keyword(call, "num_frames", "1")
    return {call: new, limit.value: cst.parse_expression(f"self.{LIMIT}()")}


def _measure_videos(method: cst.FunctionDef) -> Edits:
    """The dummy video gets the size for videos, beside the one for pictures."""
    videos = tree.calls(method, "self._get_dummy_videos")
    targets = list(TARGET.find(method))
    if len(videos) != 1 or len(targets) != 1:
        raise Unrecognized(_("the sizes of the dummies are not found"), method)
    edits: dict[cst.CSTNode, cst.CSTNode | None] = {}
    for name in ("width", "height"):
        given = tree.argument(videos[0], 9, name)
        if given is None:
            raise Unrecognized(_("the dummy video is given no {name}", name=name), videos[0])
        edits[given.value] = cst.Name(f"video_{name}")
    (line,) = cst.parse_module(f"video_width, video_height = self.info.{VIDEO_SIZE}()\n").body
    body: list[cst.CSTNode] = []
    for each in method.body.body:
        body.append(each)
        if isinstance(each, cst.SimpleStatementLine) and targets[0].node in each.body:
            body.append(line)
    edits[method.body] = method.body.with_changes(body=body)
    return edits


def two_dummy_frames(module: cst.Module) -> list[Place]:
    """``video = np.full((num_frames, …))`` → after ``num_frames = max(num_frames, 2)``."""
    method = tree.find_method(module, BUILDER, "_get_dummy_videos")
    enough = [found.node for found in FRAMES.find(method)]
    if enough:
        return [Place(enough[-1])]
    body: list[cst.CSTNode] = []
    made: list[cst.CSTNode] = []
    (line,) = cst.parse_module("num_frames = max(num_frames, 2)\n").body
    for each in method.body.body:
        if isinstance(each, cst.SimpleStatementLine) and DUMMY.match(each.body[0]):
            body.append(line.with_changes(leading_lines=each.leading_lines))
            each = each.with_changes(leading_lines=[])
            made.append(each.body[0])
        body.append(each)
    if len(made) != 1:
        raise Unrecognized(_("the dummy video is not found"), method)
    return [Place(made[0], broken=True, edits={method.body: method.body.with_changes(body=body)})]


def fused_projection_name(module: cst.Module) -> list[Place]:
    """``prefix=f"{prefix}.qkv"`` → ``.qkv_proj`` where there is a quantisation."""
    init = tree.find_method(module, "Glm4vVisionAttention", "__init__")
    fused = tree.calls(init, "QKVParallelLinear")
    prefix = tree.argument(fused[0], 10, "prefix") if len(fused) == 1 else None
    if prefix is None:
        raise Unrecognized(_("the fused projection and its prefix are not found"), init)
    wrong = Snippet('f"{prefix}.qkv"', 'prefix + ".qkv"').match(prefix.value)
    if wrong is None:
        return [Place(prefix.value)]
    right = cst.parse_expression('f"{prefix}.qkv_proj" if quant_config else f"{prefix}.qkv"')
    return [Place(prefix.value, broken=True, edits={prefix.value: right})]


def _returned(method: cst.FunctionDef) -> cst.CSTNode:
    returned = [each for each in tree.find_all(method, cst.Return) if each.value]
    return returned[-1] if returned else method
