"""Texts to features: every distinct token once through a frozen language model.

``rendering``      messages to token ids     ``prefix_tree``   common prefixes packed
``model_source``   where the model is        ``tree_attention``  attention along them
``model_settings`` layers, window, precision ``batching``      packed or padded passes
``language_model`` hidden states             ``pooling``       states to one vector
``model_probe``    what the model can do     ``embed_pairs``   all of it, for some pairs
``shards``         which pairs go together   ``shard_worker``  one shard, files in and out
``reuse``          why features are reused
"""
