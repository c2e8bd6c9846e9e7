/* flux/hub/hub.h: models, adapters and data sets of the Hugging Face Hub.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * hf://user/name[@revision][/path] is a model repository (hf://models/... too),
 * hf://datasets/user/name[@revision][/path] a data set. What is needed of it is
 * downloaded into the cache that huggingface_hub uses, in its layout (its guide
 * "Understand caching", file_download.py), so Python and this share downloads:
 *
 *   CACHE/models--user--name/blobs/ETAG            SHA-256 of LFS files, git's SHA-1 else
 *                           /blobs/ETAG.incomplete the first bytes of it; resumed
 *                           /snapshots/COMMIT/path links into blobs
 *                           /refs/main             the commit
 *   CACHE/.locks/models--user--name/ETAG.lock      flock(2) while it is written
 *
 * Environment, as there: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME; HF_TOKEN, HF_TOKEN_PATH,
 * $HF_HOME/token; HF_ENDPOINT; HF_HUB_OFFLINE; HF_HUB_DOWNLOAD_TIMEOUT (seconds of
 * silence). The token goes to the endpoint's own scheme, host and port and nowhere else,
 * and never into a message. Every file is checked by its hash before it gets its name.
 * Only safetensors weights are taken, never a second copy or variant of them. */
#pragma once

#include "flux/files/weights.h"

G_BEGIN_DECLS

/* What of a repository is needed. */
typedef enum {
  FLUX_HUB_TRANSFORMER = 1 << 0, /* config and weights */
  FLUX_HUB_VAE = 1 << 1,
  FLUX_HUB_TEXT = 1 << 2, /* both encoders and tokenizers */
  FLUX_HUB_SCHEDULER = 1 << 3,
  FLUX_HUB_MODEL = 15,
  FLUX_HUB_LORA =
      1 << 4, /* one file: pytorch_lora_weights.safetensors, or the only one */
  FLUX_HUB_DATASET = 1 << 5 /* what flux/data/dataset.h would read of the folder */
} FluxHubWant;

/* Starts with "hf://". */
gboolean flux_hub_is_uri (const char *location);

/* The local path (a folder; a file for FLUX_HUB_LORA and for a path to a file), after
 * downloading what is not there. A location that is no hf:// is returned as it is.
 * Blocks; progress (may be NULL) is called ten times a second from this thread, with -1
 * until there is something to download, and by FALSE stops everything at once: partial
 * files stay and are gone on with the next time.
 * When the Hub cannot be reached, what the cache has is used. g_free() the result. */
char *flux_hub_resolve (const char *location, FluxHubWant want, FluxProgressFunc progress,
    gpointer data, GError **error);

G_END_DECLS
