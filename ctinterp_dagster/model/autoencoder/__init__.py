"""MAISI's autoencoder, in bounded memory: `load_autoencoder(path)`."""

from ctinterp_dagster.model.autoencoder.network import (
    LATENT_STRIDE,
    MEMORY_GIB,
    MaisiAutoencoder,
    Posterior,
    load_autoencoder,
)

__all__ = ["LATENT_STRIDE", "MEMORY_GIB", "MaisiAutoencoder", "Posterior", "load_autoencoder"]
