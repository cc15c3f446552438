"""Wrong answers to the exercise of notebook 01b."""

LARGEST = 448


def upside_down(weight, per_channel=True):
    largest = weight.abs().amax(dim=1, keepdim=True) if per_channel else weight.abs().amax().view(1, 1)
    return LARGEST / largest.float()


def sign_forgotten(weight, per_channel=True):
    largest = weight.amax(dim=1, keepdim=True) if per_channel else weight.amax().view(1, 1)
    return largest.clamp(min=1e-12).float() / LARGEST


def columns(weight, per_channel=True):
    largest = weight.abs().amax(dim=0, keepdim=True) if per_channel else weight.abs().amax().view(1, 1)
    return largest.clamp(min=1e-12).float() / LARGEST


def axis_dropped(weight, per_channel=True):
    return weight.abs().amax(dim=1).clamp(min=1e-12).float() / LARGEST


def always_a_channel(weight, per_channel=True):
    return weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12).float() / LARGEST


def zeros_forgotten(weight, per_channel=True):
    largest = weight.abs().amax(dim=1, keepdim=True) if per_channel else weight.abs().amax().view(1, 1)
    return largest.float() / LARGEST


def dtype_kept(weight, per_channel=True):
    largest = weight.abs().amax(dim=1, keepdim=True) if per_channel else weight.abs().amax().view(1, 1)
    return largest.clamp(min=1e-12) / LARGEST


def of_integers(weight, per_channel=True):
    largest = weight.abs().amax(dim=1, keepdim=True) if per_channel else weight.abs().amax().view(1, 1)
    return largest.clamp(min=1e-12).float() / 127


WRONG = {
    "01b.1": [
        (upside_down, "(a scale a channel), at [0, 0], it is 224"),
        (sign_forgotten, "(yours is 0.5 times that)"),
        (columns, "its shape is (1, 3), it should be (2, 1)"),
        (axis_dropped, "its shape is (2,), it should be (2, 1)"),
        (always_a_channel, "(one scale), its shape is (2, 1), it should be (1, 1)"),
        (zeros_forgotten, "(zeros), at [0, 0], it is 0"),
        (dtype_kept, "(weights in bfloat16), its dtype is torch.bfloat16"),
        (of_integers, "(yours is 3.53 times that)"),
    ],
}
