/* pipelines/pull.c: gst-flux pull: downloads from the Hub and prints where it is.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pipelines/pull.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "flux/hub/hub.h"
#include "pipelines/progress.h"

static const struct {
  const char *name;
  FluxHubWant want;
} parts[] = {{"model", FLUX_HUB_MODEL}, {"vae", FLUX_HUB_VAE}, {"text", FLUX_HUB_TEXT},
    {"transformer", FLUX_HUB_TRANSFORMER}, {"lora", FLUX_HUB_LORA},
    {"dataset", FLUX_HUB_DATASET}};

int
gst_flux_pull_help (void)
{
  printf (
      "Usage: gst-flux pull [model|vae|text|transformer|lora|dataset] hf://user/name\n\n"
      "Downloads a model, a part of one, an adapter or a data set (hf://datasets/...)\n"
      "from the Hugging Face Hub into the cache that huggingface_hub uses, and prints\n"
      "where it is. A revision and a folder may follow: hf://user/name@main/folder.\n"
      "What is there already is not fetched again, and a broken download is gone on\n"
      "with. HF_TOKEN is the token for what is gated or private.\n");
  return 0;
}

int
gst_flux_pull (char **words)
{
  const char *uri = words[1] != NULL && words[2] != NULL ? words[2] : words[1];
  FluxHubWant want = 0;
  GstFluxProgress progress;
  g_autoptr (GError) error = NULL;
  g_autofree char *path = NULL;

  if (uri == words[1])
    want = flux_hub_is_uri (uri) && g_str_has_prefix (uri, "hf://datasets/")
               ? FLUX_HUB_DATASET
               : FLUX_HUB_MODEL;
  for (guint i = 0; want == 0 && i < G_N_ELEMENTS (parts); i++)
    if (strcmp (words[1], parts[i].name) == 0)
      want = parts[i].want;
  if (!flux_hub_is_uri (uri) || want == 0 || (uri == words[2] && words[3] != NULL)) {
    fprintf (stderr, "gst-flux: write pull [model|vae|text|transformer|lora|dataset] "
                     "hf://user/name.\n");
    return 2;
  }
  gst_flux_progress_init (&progress, STDERR_FILENO);
  path = flux_hub_resolve (uri, want, gst_flux_progress_transfer, &progress, &error);
  gst_flux_progress_break (&progress);
  if (path == NULL) {
    fprintf (stderr, "gst-flux: %s\n", error->message);
    return 1;
  }
  printf ("%s\n", path);
  return 0;
}
