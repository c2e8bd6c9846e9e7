/* flux/files/gemm-plans.c: GEMM plans kept between processes. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/files/gemm-plans.h"

#include "flux/files/replace.h"

/* NULL for a backend that chooses nothing. */
static char *
path_of (fx_backend *b)
{
  g_autofree char *hash = NULL, *name = NULL;

  if (b->plans_key == NULL)
    return NULL;
  hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, b->plans_key, -1);
  name = g_strdup_printf ("gemm-plans-%.16s", hash);
  return g_build_filename (g_get_user_cache_dir (), "gst-flux", name, NULL);
}

GBytes *
flux_gemm_plans_get (fx_backend *b)
{
  g_autofree guint8 *bytes = NULL;
  gsize n = 0;

  if (fx_get_gemm_plans (b, NULL, &n) != FX_OK || n == 0)
    return NULL;
  bytes = g_malloc (n);
  if (fx_get_gemm_plans (b, bytes, &n) != FX_OK)
    return NULL;
  return g_bytes_new_take (g_steal_pointer (&bytes), n);
}

/* What is in the file, which the backend has then taken if it could. */
static GBytes *
read_file (fx_backend *b, const char *path)
{
  char *bytes;
  gsize n;

  if (!g_file_get_contents (path, &bytes, &n, NULL))
    return NULL;
  (void)fx_set_gemm_plans (b, bytes, n, false);
  return g_bytes_new_take (bytes, n);
}

void
flux_gemm_plans_read (fx_backend *b)
{
  g_autofree char *path = path_of (b);
  g_autoptr (GBytes) bytes = path != NULL ? read_file (b, path) : NULL;
}

void
flux_gemm_plans_write (fx_backend *b)
{
  g_autofree char *path = path_of (b), *folder = NULL;
  g_autoptr (GBytes) there = NULL, now = NULL;

  if (path == NULL)
    return;
  there = read_file (b, path);
  now = flux_gemm_plans_get (b);
  if (now == NULL || (there != NULL && g_bytes_equal (there, now)))
    return;
  folder = g_path_get_dirname (path);
  if (g_mkdir_with_parents (folder, 0700) == 0)
    (void)flux_file_replace (
        path, g_bytes_get_data (now, NULL), g_bytes_get_size (now), NULL);
}
