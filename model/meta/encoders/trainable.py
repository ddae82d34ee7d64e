"""Encoders of every modality in the form in which they are trained; gradients in bounded memory.

N = contents, F = frames, P = pixels a side, D = features

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
        """Return features (N, D)."""
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
        """Return features (N, D)."""
        longest = -(-max(map(len, contents)) // self._base) * self._base
        padded_NL, length_N = padded_batch(contents, len(contents), longest)
        whole = not padded_NL.is_floating_point()
        features_ND: Tensor = self.net(padded_NL.long() if whole else padded_NL, length_N)
        return features_ND

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
        """Return features (N, D)."""
        features_ND: Tensor = self.net(torch.from_numpy(np.stack(contents)))
        return features_ND

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
        """Return features (N, D)."""
        features_ND: Tensor = self.net(normalised(torch.from_numpy(np.stack(contents))))
        return features_ND

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
        """Return features (N, D)."""
        lengths = [len(clip) for clip in contents]
        every_I = self.frames(normalised(torch.from_numpy(np.concatenate(contents))))
        x_NFI = pad_sequence(list(every_I.split(lengths)), batch_first=True)
        features_ND: Tensor = self.net(x_NFI, torch.tensor(lengths))
        return features_ND

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
        graph_ND = self._part(0) if len(self._parts) == 1 else None
        self._graph_ND = graph_ND
        made_ND = features(net, contents) if graph_ND is None else graph_ND.detach()
        self.features_ND = made_ND.requires_grad_(torch.is_grad_enabled())
        """The net's outputs, as a leaf of the loss's graph; `backward` takes their gradient on."""

    def backward(self) -> None:
        """Add to the gradients of the net's parameters what the loss's graph left in
        `features_ND.grad`."""
        gradient_ND = self.features_ND.grad
        assert gradient_ND is not None
        if self._graph_ND is not None:
            torch.autograd.backward(self._graph_ND, gradient_ND[self._parts[0]])
            return
        for number, places in enumerate(self._parts):
            torch.autograd.backward(self._part(number), gradient_ND[places])

    def _part(self, number: int) -> Tensor:
        features_ND: Tensor = self._net([self._contents[place] for place in self._parts[number]])
        return features_ND


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
    """Return features (N, D) without a graph."""
    parts = parts_of(contents, net.most)
    made_ND = torch.cat([net([contents[place] for place in part]) for part in parts])
    back_N = torch.tensor([place for part in parts for place in part]).argsort()
    return made_ND[back_N]
