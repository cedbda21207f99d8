"""What callers bring, as the engine takes it: a VAE of Diffusers with latents of its pipelines, or any other VAE."""
