"""MAISI's autoencoder, in bounded memory: `load_autoencoder(path)`."""

from ctinterp_dagster.model.autoencoder.network import LATENT_STRIDE, MaisiAutoencoder, Posterior, load_autoencoder

__all__ = ["LATENT_STRIDE", "MaisiAutoencoder", "Posterior", "load_autoencoder"]
