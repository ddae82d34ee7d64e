"""Encoders of every modality in the form in which they are trained; gradients in bounded memory.

R = rows (contents), T = time steps (samples or characters, padded), F = frames, I = inputs of a
layer (features of a frame), P = pixels a side, X = source or target dim

Contents go through a net in parts that memory bounds, of like length, so that little is padded.
Where there is more than one part, features are made without a graph first; once the loss's
gradient with respect to them is known, each part is made again and its graph followed back
(GradCache; Gao et al. 2021, arXiv:2101.06983). The gradient is that of one pass, for a third more
work; batch normalisation, where there is any, is over a part.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from model.encoders import audio, image, text, vector, video
from model.encoders.audio import AudioNet, AudioSizes
from model.encoders.image import normalised
from model.encoders.sequences import padded_batch
from model.encoders.text import TextNet, TextSizes
from model.encoders.trained_part import read_net, read_sizes
from model.encoders.vector import ProjectionNet, ProjectionSizes
from model.encoders.video import VideoNet, VideoSizes, split_spec
from model.meta.encoders.trainable_cnn import TrainableCnn
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

CPU = torch.device("cpu")
Contents = Sequence[NDArray[Any]]


class Trainable(nn.Module):
    """An encoder's net, which takes prepared contents of any lengths."""

    most: int
    """The most numbers, padding included, that contents of one pass may have: about a GB with its
    graph."""

    def forward(self, contents: Contents) -> Tensor:
        """Return features (R, X)."""
        raise NotImplementedError

    def spec(self) -> PartSpec:
        """Return config and weights, as files of θ hold them."""
        raise NotImplementedError


class TrainableSequence(Trainable):
    """The net of a text or audio encoder."""

    def __init__(self, net: TextNet | AudioNet, most: int, base: int) -> None:
        """Pad contents to a multiple of `base` numbers."""
        super().__init__()
        self.net, self.most, self._base = net, most, base

    def forward(self, contents: Contents) -> Tensor:
        """Return features (R, X)."""
        longest = -(-max(map(len, contents)) // self._base) * self._base
        padded_RT, length_R = padded_batch(contents, len(contents), longest)
        whole = not padded_RT.is_floating_point()
        features_RX: Tensor = self.net(padded_RT.long() if whole else padded_RT, length_R)
        return features_RX

    def spec(self) -> PartSpec:
        """Return the net's config and weights."""
        return self.net.spec()


class TrainableProjection(Trainable):
    """The net of an encoder of vectors."""

    most = 2**22

    def __init__(self, net: ProjectionNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, contents: Contents) -> Tensor:
        """Return features (R, X)."""
        features_RX: Tensor = self.net(torch.from_numpy(np.stack(contents)))
        return features_RX

    def spec(self) -> PartSpec:
        """Return the net's config and weights."""
        return self.net.spec()


class TrainablePicture(Trainable):
    """The net of an image encoder."""

    most = 2**21

    def __init__(self, net: TrainableCnn) -> None:
        super().__init__()
        self.net = net

    def forward(self, contents: Contents) -> Tensor:
        """Return features (R, X)."""
        features_RX: Tensor = self.net(normalised(torch.from_numpy(np.stack(contents))))
        return features_RX

    def spec(self) -> PartSpec:
        """Return the net's config and weights, with batch normalisation folded in."""
        return self.net.spec()


class TrainableVideo(Trainable):
    """The nets of a video encoder; the CNN of its frames is trained along."""

    most = 2**21

    def __init__(self, net: VideoNet, frames: TrainableCnn) -> None:
        super().__init__()
        self.net, self.frames = net, frames

    def forward(self, contents: Contents) -> Tensor:
        """Return features (R, X)."""
        lengths = [len(clip) for clip in contents]
        every_FI = self.frames(normalised(torch.from_numpy(np.concatenate(contents))))
        x_RFI = pad_sequence(list(every_FI.split(lengths)), batch_first=True)
        features_RX: Tensor = self.net(x_RFI, torch.tensor(lengths))
        return features_RX

    def spec(self) -> PartSpec:
        """Return config and weights of both nets."""
        return self.net.spec(self.frames.spec())


def trainable(spec: PartSpec) -> Trainable:
    """Build the net that a spec describes, with the spec's weights. Raises BadMetaInit for a spec
    that cannot be trained."""
    net = _trainable(spec)
    return net.train().requires_grad_(True)


def _trainable(spec: PartSpec) -> Trainable:
    if spec.kind == text.KIND:
        texts = read_sizes(TextSizes, text.KIND, spec.config)
        net = read_net(lambda: TextNet(texts), spec, CPU)
        return TrainableSequence(net, 2**17, text.BASE_LENGTH)
    if spec.kind == audio.KIND:
        clips = read_sizes(AudioSizes, audio.KIND, spec.config)
        return TrainableSequence(read_net(lambda: AudioNet(clips), spec, CPU), 2**22, 1)
    if spec.kind == vector.KIND:
        vectors = read_sizes(ProjectionSizes, vector.KIND, spec.config)
        return TrainableProjection(read_net(lambda: ProjectionNet(vectors), spec, CPU))
    if spec.kind == image.KIND:
        return TrainablePicture(TrainableCnn(spec))
    if spec.kind == video.KIND:
        own, frame = split_spec(spec)
        videos = read_sizes(VideoSizes, video.KIND, own.config)
        return TrainableVideo(read_net(lambda: VideoNet(videos), own, CPU), TrainableCnn(frame))
    raise BadMetaInit(f"no encoder of kind {spec.kind!r} can be trained")


class Pass:
    """Features of contents, and the way back from them into the net's gradients."""

    def __init__(self, net: Trainable, contents: Contents) -> None:
        self._net, self._contents = net, contents
        self._parts = parts_of(contents, net.most)
        graph_RX = self._part(0) if len(self._parts) == 1 else None
        self._graph_RX = graph_RX
        made_RX = features(net, contents) if graph_RX is None else graph_RX.detach()
        self.features_RX = made_RX.requires_grad_(torch.is_grad_enabled())
        """The net's outputs, as a leaf of the loss's graph; `backward` takes their gradient on."""

    def backward(self) -> None:
        """Add to the gradients of the net's parameters what the loss's graph left in
        `features_RX.grad`."""
        gradient_RX = self.features_RX.grad
        assert gradient_RX is not None
        if self._graph_RX is not None:
            torch.autograd.backward(self._graph_RX, gradient_RX[self._parts[0]])
            return
        for number, places in enumerate(self._parts):
            torch.autograd.backward(self._part(number), gradient_RX[places])

    def _part(self, number: int) -> Tensor:
        features_RX: Tensor = self._net([self._contents[place] for place in self._parts[number]])
        return features_RX


def parts_of(contents: Contents, most: int) -> list[list[int]]:
    """Return places of contents, part by part: one part if all padded contents have no more than
    `most` numbers; else, in order of length, as few parts as that takes. A content longer than
    `most` is a part of its own."""
    sizes = [content.size for content in contents]
    if max(sizes) * len(sizes) <= most:
        return [list(range(len(sizes)))]
    parts: list[list[int]] = [[]]
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place]):
        # sizes only grow: this one's is what all of the part would be padded to
        if parts[-1] and (len(parts[-1]) + 1) * sizes[place] > most:
            parts.append([])
        parts[-1].append(place)
    return parts


@torch.no_grad()
def features(net: Trainable, contents: Contents) -> Tensor:
    """Return features (R, X) without a graph."""
    parts = parts_of(contents, net.most)
    made_RX = torch.cat([net([contents[place] for place in part]) for part in parts])
    back_R = torch.tensor([place for part in parts for place in part]).argsort()
    return made_RX[back_R]
