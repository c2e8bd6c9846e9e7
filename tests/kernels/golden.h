/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Reads golden tensors: the checked-in cut and, where it is at hand, the whole file. The
 * files are our own, so this is no parser for outside data. */
#pragma once

#include "common.h"
#include "tests/testdata.h"

typedef struct {
  char *bytes;
  gsize size;
  const char *data; /* behind the header */
} golden;

/* NULL data when there is no such file. */
static inline golden
golden_open (const char *path)
{
  golden g = {NULL};
  guint64 n;

  if (!g_file_get_contents (path, &g.bytes, &g.size, NULL))
    return (golden){NULL};
  memcpy (&n, g.bytes, 8);
  g.data = g.bytes + 8 + n;
  return g;
}

/* A tensor's bytes, or NULL when it is not in the file. */
static inline const void *
golden_get (const golden *g, const char *key, size_t *bytes)
{
  char *quoted = g_strdup_printf ("\"%s\":{", key);
  const char *entry = g_strstr_len (g->bytes + 8, g->data - g->bytes - 8, quoted);
  guint64 begin, end;
  char *rest;

  g_free (quoted);
  if (entry == NULL)
    return NULL;
  entry = g_strstr_len (entry, 400, "\"data_offsets\":[");
  begin = g_ascii_strtoull (entry + strlen ("\"data_offsets\":["), &rest, 10);
  end = g_ascii_strtoull (rest + 1, NULL, 10);
  if (bytes != NULL)
    *bytes = end - begin;
  return g->data + begin;
}

static inline const void *golden_getf (const golden *g, size_t *bytes, const char *format,
    ...) __attribute__ ((format (printf, 3, 4)));
static inline const void *
golden_getf (const golden *g, size_t *bytes, const char *format, ...)
{
  va_list args;
  char *key;
  const void *p;

  va_start (args, format);
  key = g_strdup_vprintf (format, args);
  va_end (args);
  p = golden_get (g, key, bytes);
  g_free (key);
  return p;
}

static inline void
golden_with (void (*fn) (const golden *g), char *path, gboolean required)
{
  golden g = golden_open (path);

  if (g.bytes != NULL)
    fn (&g);
  else if (required)
    g_error ("no %s", path);
  else
    g_test_skip_printf ("no %s", path);
  g_free (g.bytes);
  g_free (path);
}

/* fn on the checked-in values. */
static inline void
golden_checked_in (void (*fn) (const golden *g))
{
  golden_with (fn,
      g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "kernels.safetensors", NULL),
      TRUE);
}

/* fn on the whole golden folder; skips where it is absent. */
static inline void
golden_shared (void (*fn) (const golden *g))
{
  char *shared = flux_test_shared ();

  if (shared == NULL) {
    g_test_skip ("no golden/golden.safetensors");
    return;
  }
  golden_with (
      fn, g_build_filename (shared, "golden", "golden.safetensors", NULL), FALSE);
  g_free (shared);
}
