/* tests/testdata.h: where the tests' data is. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <glib.h>

/* The folder with golden/, tiny-flux-emoji/, ..., or NULL where it is absent. g_free()
 * it. */
static inline char *
flux_test_shared (void)
{
  const char *env = g_getenv ("FLUX_TEST_SHARED");
  const char *src = g_getenv ("FLUX_TEST_SRC");
  char *dir;

  if (env != NULL)
    return g_strdup (env);
  if (src == NULL)
    return NULL;
  dir = g_build_filename (src, "..", "..", "shared", "data", NULL);
  if (g_file_test (dir, G_FILE_TEST_IS_DIR))
    return dir;
  g_free (dir);
  return NULL;
}

/* The bf16 tiny model, or NULL. */
static inline char *
flux_test_model (void)
{
  const char *env = g_getenv ("FLUX_TEST_MODEL");
  char *shared, *dir;

  if (env != NULL)
    return g_strdup (env);
  shared = flux_test_shared ();
  if (shared == NULL)
    return NULL;
  dir = g_build_filename (shared, "tiny-flux-emoji", NULL);
  g_free (shared);
  if (g_file_test (dir, G_FILE_TEST_IS_DIR))
    return dir;
  g_free (dir);
  return NULL;
}
