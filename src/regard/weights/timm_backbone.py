"""timm's weights of ImageNet for a backbone."""

from regard.errors import RegardError
from regard.models import DETR, TimmBackbone
from regard.models.backbone import create_body
from regard.weights.files import require_fit


def load_pretrained_backbone(model: DETR) -> None:
    """Loads timm's weights into the backbone of a model, from timm's cache or the network.

    RegardError where timm has none of that name, or they cannot be fetched.
    """
    backbone = model.backbone
    if not isinstance(backbone, TimmBackbone):
        raise RegardError(f"model.pretrained_backbone: timm has no weights of {backbone.name}")
    try:
        body = create_body(backbone.name, dilated=backbone.dilated, in_chans=backbone.in_chans, pretrained=True)
    except Exception as error:  # whatever a hub's client raises: each has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RegardError(
            f"model.pretrained_backbone: timm's weights of {backbone.name} cannot be had: {reason[:300]}; "
            "without a network, --set model.pretrained_backbone=false"
        ) from None
    wanted = backbone.body.state_dict()
    found = {name: tensor for name, tensor in body.state_dict().items() if name in wanted}
    require_fit(found, wanted, f"timm's {backbone.name}")
    backbone.body.load_state_dict(found)
