"""What a θ is, in a few words and numbers, without its tensors. No torch here."""

from dataclasses import dataclass

from model.theta.meta_init import MetaInit, Modality, OutputActivation


@dataclass(frozen=True, slots=True)
class ThetaInfo:
    """The facts of one θ that whoever uses its mappings needs."""

    version: str
    content_hash: str
    """SHA-256 over every tensor and fact, hexadecimal."""
    source_modality: Modality
    target_modality: Modality
    source_dim: int
    """D: dimensions of a source feature vector."""
    hidden_dim: int
    """H: units of the mapping's hidden layer."""
    target_dim: int
    """E: dimensions of a target feature vector."""
    activation: OutputActivation
    """σ of the mapping."""
    output_activation: OutputActivation
    """σo of the mapping, usually none."""
    encoder_version: str
    """Features of different encoder versions must not meet in one window."""
    generator: str
    """What makes a stream's starting point: mlp, attention, mixture or adversarial."""
    learner: str
    """How a stream is adapted: maml, anil, r2d2, ..."""
    loss: str
    """What the losses of an Adaptation measure: mse or cosine."""

    @property
    def maps(self) -> str:
        """From what to what θ maps, for people: "image (64) -> vector (32)"."""
        return (
            f"{self.source_modality} ({self.source_dim}) -> "
            f"{self.target_modality} ({self.target_dim})"
        )


def info_of(theta: MetaInit, loss: str) -> ThetaInfo:
    """Returns the facts of `theta`, whose losses are measured as `loss` says. It hashes every
    tensor, so keep what it returns."""
    return ThetaInfo(
        version=theta.version,
        content_hash=theta.content_hash,
        source_modality=theta.source_modality,
        target_modality=theta.target_modality,
        source_dim=theta.source_dim,
        hidden_dim=theta.hidden_dim,
        target_dim=theta.target_dim,
        activation=theta.activation,
        output_activation=theta.output_activation,
        encoder_version=theta.encoder_version,
        generator=theta.generator.kind,
        learner=theta.learner.kind,
        loss=loss,
    )
