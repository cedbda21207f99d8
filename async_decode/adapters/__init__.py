"""What callers bring, as the engine takes it: VAEs of Diffusers with the latents of their pipelines, or any other VAE."""
