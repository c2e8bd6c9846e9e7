/* tests/golden/files.c: the other files of a golden folder. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * lora/ and adapter/: the adapter after the fp32 run, as diffusers writes it in two ways;
 * embeddings.parquet: the texts under the hashes of the images; sample_TAG.png. */
#include <string.h>

#include "flux/error.h"
#include "flux/files/embedding-table.h"
#include "flux/image/image.h"
#include "tests/golden/parity.h"

/* ---- adapters ---- */

static void
compare_adapter (Parity *p, const char *folder)
{
  g_autofree char *path = g_build_filename (p->golden_dir, folder, NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora = NULL;
  g_autofree float *flat = NULL;
  FluxTransformer *base;
  ParityError e = {0};
  gsize bytes;

  if (!g_file_test (path, G_FILE_TEST_IS_DIR)) {
    parity_skip (p, folder, "there is no such folder in the golden folder");
    return;
  }
  base = parity_base (p, PARITY_BASE_FLOAT, &error);
  if (base == NULL || (lora = flux_lora_load (flux_transformer_get_config (base),
                           p->backend, path, FALSE, &error)) == NULL) {
    parity_fail (p, folder, &error);
    return;
  }
  bytes = flux_lora_n_flat (lora) * sizeof (float);
  flat = g_malloc (bytes);
  if (fx_download (p->backend, flat, flux_lora_parameters (lora), bytes) != FX_OK)
    parity_fail_fx (p, folder);
  else if (!parity_add_adapter (p, &e, lora, "train_fp32.final", flat, &error))
    parity_fail (p, folder, &error);
  else
    parity_judge (p, folder, &e, 0);
}

/* ---- embeddings ---- */

static void
compare_row (Parity *p, FluxEmbeddingTable *table, const char *index)
{
  const char *hash = parity_metadata (p, "image_sha256.%s", index);
  g_autofree char *group = g_strdup_printf ("embeddings.parquet.%s", index);
  gsize n_embeds = 0, n_pooled = 0;
  g_autofree float *embeds = parity_floats (p, &n_embeds, "text.%s.prompt_embeds", index);
  g_autofree float *pooled = parity_floats (p, &n_pooled, "text.%s.pooled", index);
  g_autoptr (GError) error = NULL;
  FluxEmbedding row = {0};
  ParityError e = {0};

  if (hash == NULL || embeds == NULL || pooled == NULL)
    return;
  if (!flux_embedding_table_lookup (table, hash, &row, &error)) {
    if (error == NULL)
      parity_skip (p, group, "the table has no row for this image");
    else
      parity_fail (p, group, &error);
    return;
  }
  if (g_bytes_get_size (row.prompt_embeds) != n_embeds * sizeof (float) ||
      g_bytes_get_size (row.pooled) != n_pooled * sizeof (float)) {
    g_set_error (&error, FLUX_ERROR, FLUX_ERROR_MISMATCH, "the row has other lengths");
    parity_fail (p, group, &error);
  } else {
    parity_add (&e, "prompt_embeds", g_bytes_get_data (row.prompt_embeds, NULL), embeds,
        n_embeds);
    parity_add (&e, "pooled", g_bytes_get_data (row.pooled, NULL), pooled, n_pooled);
    parity_judge (p, group, &e, 0);
  }
  flux_embedding_clear (&row);
}

static void
compare_embeddings (Parity *p)
{
  g_autofree char *path = g_build_filename (p->golden_dir, "embeddings.parquet", NULL);
  g_auto (GStrv) indices = parity_indices (p, "text.");
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxEmbeddingTable) table = NULL;

  if (!g_file_test (path, G_FILE_TEST_EXISTS)) {
    parity_skip (p, "embeddings.parquet", "there is no such file in the golden folder");
    return;
  }
  table = flux_embedding_table_open (path, FALSE, 0, 0, &error);
  if (table == NULL) {
    parity_fail (p, "embeddings.parquet", &error);
    return;
  }
  for (guint i = 0; indices[i] != NULL; i++)
    compare_row (p, table, indices[i]);
}

/* ---- pictures ---- */

static void
compare_picture (Parity *p, const char *tag)
{
  g_autofree char *file = g_strdup_printf ("sample_%s.png", tag);
  g_autofree char *path = g_build_filename (p->golden_dir, file, NULL);
  const FluxTensor *want = parity_find (p, "sample.%s.image_u8", tag);
  g_autofree char *bytes = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxImage) image = NULL;
  gsize length;

  if (want == NULL || want->n_dims != 3 || !g_file_test (path, G_FILE_TEST_EXISTS))
    return;
  if (!g_file_get_contents (path, &bytes, &length, &error) ||
      (image = flux_image_decode (
           (const guint8 *)bytes, length, file, FLUX_IMAGE_MAX_PIXELS, &error)) == NULL)
    parity_fail (p, file, &error);
  else if (image->mode != FLUX_IMAGE_RGB || image->height != want->dims[0] ||
           image->width != want->dims[1])
    parity_skip (p, file, "it is not the picture of image_u8");
  else
    parity_equal (p, file, image->pixels, want->data, want->n_bytes);
}

void
parity_files (Parity *p)
{
  g_auto (GStrv) tags = parity_indices (p, "sample.");

  compare_adapter (p, "lora");
  compare_adapter (p, "adapter");
  compare_embeddings (p);
  for (guint i = 0; tags[i] != NULL; i++)
    compare_picture (p, tags[i]);
}
