"""Corrections of the colours of a change."""

import torch
import torch.nn.functional as F
from torch import Tensor

from faceage.models.decoders import Change, displace
from faceage.models.windows import mouth_window, skin_window

# By how much a part of a face may get redder, greener or bluer, in [-1, 1]: 5, 0 and 2.5 levels of
# 255. Children's cheeks are redder; nothing gets greener with age.
CAST_TOLERANCES = (0.04, 0.0, 0.02)

# Hair turns grey between these target ages, years, where it gets lighter by these differences, in
# [-1, 1], and loses this part of its colour. Skin hardly ever gets as much lighter.
GREYING_AGES = (40.0, 65.0)
GREYING_LIGHTNESS = (0.1, 0.35)
GREYING = 0.7

# By how much the lips of children may be redder than their skin, in [-1, 1]: 40 levels of 255, a
# little less than the upper quartile of real children of 1 to 4. It holds up to the first of the
# ages, years, and there is no limit from the second on.
LIP_REDNESS = 0.31
LIP_AGES = (10.0, 13.0)

_BLOCKS = 32  # along a side, of which `limit_colour_cast` and `grey_hair` take the means


def correct_colours(faces: Tensor, change: Change, target_age: Tensor) -> Change:
    """`limit_colour_cast`, `grey_hair` and `limit_lips`, one after the other.

    Args:
        faces: N,3,S,S in [-1, 1].
        change: from `FaceAgeModel.decode`, or the mean of several.
        target_age: (N,) years.
    """
    change = grey_hair(faces, limit_colour_cast(faces, change), target_age)
    aged = displace(faces, change.flow) + change.residual
    return change._replace(residual=change.residual + limit_lips(aged, target_age) - aged)


def limit_colour_cast(faces: Tensor, change: Change) -> Change:
    """A change that makes no part of a face much redder, greener or bluer than the face is nearby.

    Learned from synthetic children and old people, changes exaggerate some colours: red lips, blue
    shades beside a face that gets smaller, green hair in place of blond. "Nearby" is within two
    blocks. Lightness stays, and colours may get paler.
    """
    before, after = map(_colour_cast, _block_means(faces, change))
    tolerance = torch.tensor(CAST_TOLERANCES, device=faces.device)[:, None, None]
    excess = F.relu(after - F.max_pool2d(before, 5, 1, 2).clamp(min=0) - tolerance)
    reduction = 2 / 3 * excess  # of a channel; the other two get half of it each
    reduction = reduction - 0.5 * (reduction.sum(1, keepdim=True) - reduction)
    return change._replace(residual=change.residual - _enlarge(reduction, faces))


def grey_hair(faces: Tensor, change: Change, target_age: Tensor) -> Change:
    """A change that removes colour where an old face gets much lighter, which is its hair.

    The model makes blond and brown hair lighter at 65 and older, but leaves so much of its colour
    that it looks yellow or green. Lightness stays.
    """
    before, after = (blocks.mean(1, keepdim=True) for blocks in _block_means(faces, change))
    lighter = _enlarge(_ramp(after - before, *GREYING_LIGHTNESS), faces)
    older = _ramp(target_age.to(faces), *GREYING_AGES)[:, None, None, None]
    aged = displace(faces, change.flow) + change.residual
    colour = aged - aged.mean(1, keepdim=True)
    return change._replace(residual=change.residual - GREYING * older * lighter * colour)


def limit_lips(faces: Tensor, ages: Tensor) -> Tensor:  # N,3,S,S in [-1, 1], (N,) years
    """Faces whose lips are at most `LIP_REDNESS` redder than the skin, in FFHQ crops.

    Only children are changed: their lips get closer to the colour of the skin. Adults may wear
    lipstick, and the lips of rendered children are twice as red as those of photographed ones.
    """
    rows, columns = mouth_window(faces.shape[-1])
    limited = faces.clone()
    limited[..., rows, columns] -= lip_excess(faces, ages)
    return limited


def lip_excess(faces: Tensor, ages: Tensor) -> Tensor:  # N,3,S,S, (N,) -> N,3,h,w
    """What `limit_lips` takes from the mouth."""
    side = faces.shape[-1]
    skin = faces[(..., *skin_window(side))].mean((2, 3), keepdim=True)
    lips = faces[(..., *mouth_window(side))] - skin
    cast = _colour_cast(lips)
    redness = torch.maximum(cast[:, :1], -cast[:, 1:2])  # pink lips are as blue as they are red
    part = 1 - LIP_REDNESS / redness.clamp(min=LIP_REDNESS)
    young = 1 - _ramp(ages.to(faces), *LIP_AGES)
    return lips * part * young[:, None, None, None]


def _block_means(faces: Tensor, change: Change) -> tuple[Tensor, Tensor]:  # N,3,32,32 each
    """The means of the blocks of the displaced faces, and of these with the residual."""
    moved = displace(faces, change.flow)
    before, after = (F.avg_pool2d(x, _block_side(faces)) for x in (moved, moved + change.residual))
    return before, after


def _enlarge(blocks: Tensor, faces: Tensor) -> Tensor:  # N,K,32,32 -> N,K,S,S
    scale = _block_side(faces)
    return F.interpolate(blocks, scale_factor=scale, mode="bilinear", align_corners=False)


def _block_side(faces: Tensor) -> int:  # px
    return max(1, faces.shape[-1] // _BLOCKS)


def _colour_cast(faces: Tensor) -> Tensor:  # N,3,h,w -> N,3,h,w
    """Each colour channel minus the mean of the other two."""
    return 1.5 * (faces - faces.mean(1, keepdim=True))


def _ramp(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, linear between."""
    return ((values - low) / (high - low)).clamp(0, 1)
