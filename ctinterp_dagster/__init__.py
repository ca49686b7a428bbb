"""ctinterp: thick-slice CT to thin-slice CT by conditional 3D latent diffusion."""
