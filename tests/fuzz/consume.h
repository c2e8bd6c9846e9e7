/* tests/fuzz/consume.h: opens bytes that may be anything, and uses all that comes of
 * them. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shared by the fuzzers and by test-mutations. A call that fails must say why; whatever
 * it returns must be readable to the last byte. */
#pragma once

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "flux/error.h"
#include "flux/files/parquet.h"
#include "flux/files/safetensors-private.h"
#include "flux/files/safetensors.h"

/* The bytes as a file in memory; *path is g_free()d by the caller, the descriptor closed.
 */
static inline int
consume_file (const void *bytes, gsize length, char **path)
{
  int fd = memfd_create ("consume", MFD_CLOEXEC);

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (write (fd, bytes, length), ==, length);
  *path = g_strdup_printf ("/proc/self/fd/%d", fd);
  return fd;
}

static inline void
consume_error (GError *error, const char *path)
{
  g_assert_nonnull (error);
  g_assert_true (error->domain == FLUX_ERROR);
  g_assert_nonnull (strstr (error->message, path));
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
}

/* Reads every byte, so that a sanitizer sees those that are not there. */
static inline guint
consume_bytes (gconstpointer bytes, gsize n)
{
  const guchar *p = bytes;
  guint sum = 0;

  for (gsize i = 0; i < n; i++)
    sum += p[i];
  return sum;
}

/* TRUE when the file was taken. */
static inline gboolean
consume_safetensors (const void *bytes, gsize length)
{
  g_autofree char *path = NULL;
  int fd = consume_file (bytes, length, &path);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxSafetensors) st = flux_safetensors_open (path, &error);
  gsize sum = 0;

  if (st == NULL)
    consume_error (error, path);
  for (guint i = 0; st != NULL && i < flux_safetensors_get_n_tensors (st); i++) {
    const FluxTensor *t = flux_safetensors_get_nth (st, i);
    g_autofree float *values = g_try_new (float, t->n_elements);

    g_assert_true (flux_safetensors_lookup (st, t->name) == t);
    g_assert_cmpuint (t->n_bytes, ==, t->n_elements * fx_dtype_size (t->dtype));
    consume_bytes (t->data, t->n_bytes);
    sum += t->n_bytes;
    flux_tensor_to_f32 (t, values, NULL);
  }
  g_assert_cmpuint (sum, <=, length);
  close (fd);
  return st != NULL;
}

static inline gboolean
consume_index (const void *bytes, gsize length)
{
  g_autofree char *path = NULL;
  int fd = consume_file (bytes, length, &path);
  g_autoptr (GPtrArray) names = NULL;
  g_autoptr (GPtrArray) shards = NULL;
  g_autoptr (GError) error = NULL;
  gboolean ok = flux_safetensors_read_index (path, &names, &shards, &error);

  if (!ok)
    consume_error (error, path);
  else
    g_assert_cmpuint (names->len, ==, shards->len);
  for (guint i = 0; ok && i < shards->len; i++)
    g_assert_null (strchr (shards->pdata[i], '/'));
  close (fd);
  return ok;
}

/* FALSE when the row could not be read. */
static inline gboolean
consume_value (
    FluxParquet *file, guint column, FluxParquetKind kind, gint64 row, const char *path)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) value = NULL;
  g_autoptr (GArray) list = NULL;
  double number;

  if (kind == FLUX_PARQUET_BYTES) {
    value = flux_parquet_read_bytes (file, column, row, &error);
    if (value != NULL)
      consume_bytes (g_bytes_get_data (value, NULL), g_bytes_get_size (value));
  } else if (kind == FLUX_PARQUET_NUMBER) {
    flux_parquet_read_number (file, column, row, &number, &error);
  } else {
    list = flux_parquet_read_list (file, column, row, &error);
    if (list != NULL)
      consume_bytes (list->data, list->len * sizeof (double));
  }
  if (error != NULL)
    consume_error (error, path);
  g_assert_true (error == NULL || (value == NULL && list == NULL));
  return error == NULL;
}

/* At most max_rows of every column, forwards and then a few backwards; TRUE when the file
 * was taken and all of them could be read. */
static inline gboolean
consume_parquet (const void *bytes, gsize length, gint64 max_rows)
{
  g_autofree char *path = NULL;
  int fd = consume_file (bytes, length, &path);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxParquet) file = flux_parquet_open (path, &error);
  gboolean ok = file != NULL;

  if (file == NULL)
    consume_error (error, path);
  for (guint c = 0; file != NULL && c < MIN (flux_parquet_get_n_columns (file), 64);
       c++) {
    gint64 n = MIN (flux_parquet_get_n_rows (file), max_rows);
    FluxParquetKind kind;

    g_assert_nonnull (flux_parquet_get_column_name (file, c));
    g_assert_cmpint (
        flux_parquet_find_column (file, flux_parquet_get_column_name (file, c)), >=, 0);
    if (!flux_parquet_get_kind (file, c, &kind, NULL))
      continue;
    for (gint64 row = 0; row < n; row++) {
      if (!consume_value (file, c, kind, row, path)) {
        ok = FALSE;
        break;
      }
    }
    for (gint64 row = n - 1; row >= 0; row -= MAX (n / 4, 1))
      ok &= consume_value (file, c, kind, row, path);
    if (n > 0) /* the last one may lie in another row group */
      ok &= consume_value (file, c, kind, flux_parquet_get_n_rows (file) - 1, path);
  }
  close (fd);
  return ok;
}
