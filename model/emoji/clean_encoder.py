"""The image encoder without what it knows of test languages.

R = rows (drawings), U = numbers of an embedding (of a key, and 1), Y = candidates (concepts),
P = pixels a side, C = channels

    python -m model.emoji.clean_encoder --encoder-from FILE --out FILE        (a minute)

`model.emoji.train_pictures` trains towards `universal64.npy`, which names in all languages went
into. The encoder gives the vectors of the concepts that a picture resembles, and of a linear map
beside; here both are replaced: the concepts' vectors by those of `clean64.npy`, and the linear map
by the one that finds those from the keys of training drawings, by ridge regression. What is left of
test languages is in the convolutions alone, which were trained to tell pictures apart and saw how
concepts resemble each other as a fifth of each label.
"""

import argparse
from pathlib import Path

import torch
from torch.nn import functional

from model.emoji.augment import redrawn
from model.emoji.train_pictures import training_pictures
from model.encoders.image import ImageEncoder, normalised
from model.theta.part import PartSpec
from model.theta.part_file import load_encoder, save_part

VERSIONS = 4
"""Each drawing as it is, and so many less one times augmented."""
PENALTY = 1e-4
"""In units of the number of drawings; keys have length 1."""
PICTURES_PER_CHUNK = 64


def clean_encoder(spec: PartSpec, seed: int = 0) -> PartSpec:
    """Returns the encoder with the vectors of concepts, and the linear map, without test
    languages."""
    pictures_RPPC, concept_R, vectors_YU = training_pictures("clean")
    unit_YU = functional.normalize(vectors_YU, dim=1)
    ink = normalised(pictures_RPPC)
    generator = torch.Generator().manual_seed(seed)
    network = _keys_alone(spec)
    keys_RU = []
    for version in (ink, *(redrawn(ink, generator) for _ in range(VERSIONS - 1))):
        chunks = torch.split(version, PICTURES_PER_CHUNK)
        found_RU = torch.cat([network.encode_ink(chunk) for chunk in chunks])
        keys_RU.append(functional.normalize(found_RU.clone(), dim=1))
    map_UU = _ridge(torch.cat(keys_RU), unit_YU[concept_R].repeat(VERSIONS, 1))
    lengths_Y1 = torch.tensor(spec.tensors["values"]).norm(dim=1, keepdim=True)
    tensors = dict(spec.tensors)
    tensors["values"] = (unit_YU * lengths_Y1).numpy()
    tensors["direct.weight"] = map_UU[:-1].T.contiguous().numpy()
    tensors["direct.bias"] = map_UU[-1].numpy()
    return PartSpec(spec.config, tensors).rounded()


def _keys_alone(spec: PartSpec) -> ImageEncoder:
    """The network up to a picture's key."""
    tensors = {n: t for n, t in spec.tensors.items() if n.startswith(("conv", "linear"))}
    config = dict(spec.config) | {"lookup": None, "dim": spec.config["lookup"][1]}
    return ImageEncoder(PartSpec(config, tensors), torch.device("cpu"))


def _ridge(keys_RU: torch.Tensor, vectors_RU: torch.Tensor) -> torch.Tensor:
    keys_RU = functional.pad(keys_RU, (0, 1), value=1.0).double()
    gram_UU = keys_RU.T @ keys_RU
    penalty_UU = PENALTY * len(keys_RU) * torch.eye(len(gram_UU), dtype=torch.float64)
    found: torch.Tensor = torch.linalg.solve(gram_UU + penalty_UU, keys_RU.T @ vectors_RU.double())
    return found.float()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the encoder without test languages.")
    parser.add_argument("--encoder-from", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = clean_encoder(load_encoder(arguments.encoder_from, "image"))
    save_part(spec, arguments.out, {"training": "values and direct map of clean64.npy"})


if __name__ == "__main__":
    main()
