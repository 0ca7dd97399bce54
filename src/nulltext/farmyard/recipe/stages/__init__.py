"""The stages of the training: VAE, CLIP, UNet and flow transformer."""
