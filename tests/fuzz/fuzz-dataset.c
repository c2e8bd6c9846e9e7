/* tests/fuzz/fuzz-dataset.c: libFuzzer target of metadata.jsonl and of captions beside
 * pictures. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The bytes are both, in a folder with the pictures a.png and a b.png. */
#include <glib/gstdio.h>
#include <stdint.h>
#include <string.h>

#include "flux/data/dataset.h"
#include "flux/error.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void
put (const gchar *folder, const gchar *name, const void *data, gsize size)
{
  gchar *path = g_build_filename (folder, name, NULL);
  FILE *file = g_fopen (path, "wb");

  g_assert_nonnull (file);
  fwrite (data, 1, size, file);
  fclose (file);
  g_free (path);
}

static void
use (const gchar *location)
{
  FluxDatasetOptions options = {location, "text", NULL};
  GError *error = NULL;
  FluxDataset *dataset = flux_dataset_open (&options, &error);

  if (dataset == NULL) {
    g_assert_true (error->domain == FLUX_ERROR);
    g_assert_true (g_utf8_validate (error->message, -1, NULL));
    g_error_free (error);
    return;
  }
  for (guint i = 0; i < flux_dataset_get_n_samples (dataset); i++) {
    FluxDatasetSample sample;

    if (!flux_dataset_read (dataset, i, &sample, &error)) {
      g_clear_error (&error);
      continue;
    }
    g_assert_true (g_utf8_validate (sample.caption, -1, NULL));
    g_assert_true (g_utf8_validate (sample.name, -1, NULL));
    g_assert_true (g_str_has_prefix (sample.name, g_get_tmp_dir ()));
    flux_dataset_sample_clear (&sample);
  }
  flux_dataset_free (dataset);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static gchar *folder, *jsonl, *pictures;

  if (folder == NULL) {
    folder = g_dir_make_tmp ("flux-fuzz-XXXXXX", NULL);
    jsonl = g_build_filename (folder, "fuzz.jsonl", NULL);
    pictures = g_build_filename (folder, "p", NULL);
    g_mkdir (pictures, 0700);
    put (folder, "a.png", "", 0);
    put (folder, "a b.png", "", 0);
    put (pictures, "a.png", "", 0);
  }
  put (folder, "fuzz.jsonl", data, size);
  put (pictures, "a.txt", data, size);
  use (jsonl);
  use (pictures);
  return 0;
}
