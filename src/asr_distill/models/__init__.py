"""Conformer encoder, prediction network, joint network, and the transducer made of them."""
