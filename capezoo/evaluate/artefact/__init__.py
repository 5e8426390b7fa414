"""The artefact control: what an encoder makes of a recorder's signature when patients, hearts and labels stay the same."""
