"""The demo's own video VAE, the clip that it was trained to show, and that clip encoded."""
