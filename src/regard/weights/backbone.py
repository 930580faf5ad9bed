"""Pretrained weights for a backbone alone."""

from torch import Tensor

from regard.errors import RegardError, one_line
from regard.files import expanded
from regard.models import Backbone, SASABackbone, TimmBackbone, ViTBackbone
from regard.models.backbone import create_body
from regard.weights.catalogue import find_pretrained
from regard.weights.fit import require_finite, require_fit
from regard.weights.hub import quiet_client
from regard.weights.load import load_weights

_KEY = "model.pretrained_backbone"


def load_pretrained_backbone(backbone: Backbone, entry: str | None = None) -> None:
    """Loads weights into a backbone: the catalogue's `entry`, those of a run, or those that belong to its name.

    A run is one of whole images, such as a pre-training, with the backbone's model. A backbone that the catalogue does
    not list gets timm's weights. RegardError if there are no weights, if they belong to another backbone, or if they
    cannot be downloaded.
    """
    if entry is not None and expanded(entry).exists():
        if not isinstance(backbone, ViTBackbone | SASABackbone):
            raise RegardError(f"{_KEY}: {entry} is a run of Regard's own models, model.backbone is {backbone.name}")
        load_weights(backbone.body, entry)
        return
    found = find_pretrained(entry or backbone.name)
    if entry is not None and found is None:
        raise RegardError(f"{_KEY}: the catalogue has no {entry!r} (`regard models` lists it)")
    if found is not None and found.model != backbone.name:
        raise RegardError(f"{_KEY}: {entry} is a {found.model}, model.backbone is {backbone.name}")
    if isinstance(backbone, ViTBackbone) and found is not None:
        load_weights(backbone.body, entry or backbone.name)
    elif isinstance(backbone, TimmBackbone):
        wanted = backbone.body.state_dict()
        state = _from_timm(backbone) if found is None else found.state()
        body = {name: tensor for name, tensor in state.items() if name in wanted}
        where = f"timm's {backbone.name}" if found is None else (entry or backbone.name)
        require_fit(body, wanted, where)
        require_finite(body, where)
        backbone.body.load_state_dict(body)
    else:
        raise RegardError(f"{_KEY}: timm has no weights of {backbone.name}")


def _from_timm(backbone: TimmBackbone) -> dict[str, Tensor]:
    try:
        with quiet_client():
            body = create_body(backbone.name, dilated=backbone.dilated, in_chans=backbone.in_chans, pretrained=True)
    except Exception as error:  # timm, the hub's client and HTTP each raise errors of their own
        raise RegardError(
            f"{_KEY}: timm's weights of {backbone.name} cannot be downloaded: {one_line(error)}; "
            "without a network, --set model.pretrained_backbone=false"
        ) from None
    return dict(body.state_dict())
