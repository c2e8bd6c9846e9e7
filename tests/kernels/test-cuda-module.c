/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Where the CUDA module is looked for, which one is taken, and what is said of others. */
#include "kernels/fx.h"

#include <glib/gstdio.h>
#include <string.h>

/* What look_for_module() returned: a status, a colon and a message. */
static void
expect (const char *said, int status, const char *part)
{
  g_test_message ("%s", said);
  g_assert_cmpint (g_ascii_strtoll (said, NULL, 10), ==, status);
  if (strstr (said, part) == NULL)
    g_error ("'%s' does not say '%s'", said, part);
}

static void
write_file (const char *path, const char *content, gsize n, int mode)
{
  g_autofree char *folder = g_path_get_dirname (path);

  g_assert_cmpint (g_mkdir_with_parents (folder, 0755), ==, 0);
  g_assert_true (g_file_set_contents_full (
      path, content, (gssize)n, G_FILE_SET_CONTENTS_NONE, mode, NULL));
}

/* This program from another folder: what it says when it looks for the module there, with
 * FLUX_CUDA_MODULE unset (NULL) or as it is given. */
static char *
look_for_module (const char *program, const char *variable)
{
  const char *argv[] = {program, "--look-for-module", NULL};
  char **env = g_get_environ ();
  char *said = NULL;

  if (variable != NULL)
    env = g_environ_setenv (env, "FLUX_CUDA_MODULE", variable, TRUE);
  else
    env = g_environ_unsetenv (env, "FLUX_CUDA_MODULE");
  g_assert_true (g_spawn_sync (NULL, (char **)argv, env, G_SPAWN_STDERR_TO_DEV_NULL, NULL,
      NULL, &said, NULL, NULL, NULL));
  g_strfreev (env);
  return said;
}

/* In gst-flux beside the plugin's folder first, then beside the plugin; what is there is
 * tried, here no module. An empty variable is none. */
static void
test_module_places (void)
{
  g_autofree char *lib = g_dir_make_tmp ("flux-XXXXXX", NULL);
  g_autofree char *program = g_build_filename (lib, "gstreamer-1.0", "program", NULL);
  g_autofree char *bundled =
      g_build_filename (lib, "gstreamer-1.0", "libfxcuda.so", NULL);
  g_autofree char *installed = g_build_filename (lib, "gst-flux", "libfxcuda.so", NULL);
  g_autofree char *plugins = g_path_get_dirname (program);
  g_autofree char *own = g_path_get_dirname (installed);
  g_autofree char *self = NULL, *absent = NULL, *beside = NULL, *both = NULL;
  g_autofree char *empty = NULL;
  gsize n;

  g_assert_true (g_file_get_contents ("/proc/self/exe", &self, &n, NULL));
  write_file (program, self, n, 0755);
  absent = look_for_module (program, NULL);
  write_file (bundled, "no module", 9, 0644);
  beside = look_for_module (program, NULL);
  write_file (installed, "no module", 9, 0644);
  both = look_for_module (program, NULL);
  empty = look_for_module (program, "");
  expect (absent, FX_ERR_NO_MODULE, "there is no ../gst-flux/libfxcuda.so");
  expect (beside, FX_ERR_MODULE,
      "gstreamer-1.0/libfxcuda.so' cannot be opened (file too short)");
  expect (
      both, FX_ERR_MODULE, "gst-flux/libfxcuda.so' cannot be opened (file too short)");
  g_assert_cmpstr (empty, ==, both);
  g_remove (program);
  g_remove (bundled);
  g_remove (installed);
  g_remove (own);
  g_remove (plugins);
  g_remove (lib);
}

/* A name that was given is told with what is wrong with it. */
static void
test_wrong_paths (void)
{
  g_autofree char *self = g_file_read_link ("/proc/self/exe", NULL);
  g_autofree char *dir = g_dir_make_tmp ("flux-XXXXXX", NULL);
  g_autofree char *rubbish = g_build_filename (dir, "rubbish.so", NULL);
  g_autofree char *here = g_get_current_dir ();
  g_autofree char *seen = g_strdup_printf ("the CUDA module 'no/libfxcuda.so', which "
                                           "FLUX_CUDA_MODULE names, is not there, seen "
                                           "from '%s'",
      here);
  const struct {
    const char *path, *said;
  } cases[] = {{"/nonexistent/libfxcuda.so",
                   "'/nonexistent/libfxcuda.so', which FLUX_CUDA_MODULE names, is not "
                   "there\n"},
      {"no/libfxcuda.so", seen}, {dir, "', which FLUX_CUDA_MODULE names, is a folder"},
      {rubbish, "rubbish.so', which FLUX_CUDA_MODULE names, cannot be opened (file too"},
      {"no-such-library.so",
          "'no-such-library.so', which FLUX_CUDA_MODULE names, cannot"},
      {"libm.so.6", "'libm.so.6', which FLUX_CUDA_MODULE names, is not one of gst-flux"}};

  write_file (rubbish, "no module", 9, 0644);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *said = look_for_module (self, cases[i].path);

    expect (said, FX_ERR_MODULE, cases[i].said);
  }
  g_remove (rubbish);
  g_remove (dir);
}

static char *
fake (const char *name)
{
  g_autofree char *file = g_strdup_printf ("fake-cuda-%s.so", name);

  return g_build_filename (g_getenv ("FLUX_TEST_MODULES"), file, NULL);
}

/* Nothing of a module of another build is called: these would abort. */
static void
test_other_builds (void)
{
  static const struct {
    const char *name, *said;
  } cases[] = {{"version", "' is of gst-flux 0.0.7, this is "},
      {"ops", "' is of another gst-flux "}, {"backend", "' is of another gst-flux "},
      {"old", "' is of an older gst-flux, this is "}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *path = fake (cases[i].name);

    g_assert_null (fx_cuda_new (path, 0, FX_F32));
    g_test_message ("%s", fx_error_message ());
    g_assert_cmpint (fx_error_status (), ==, FX_ERR_MODULE);
    g_assert_nonnull (strstr (fx_error_message (), path));
    g_assert_nonnull (strstr (fx_error_message (), cases[i].said));
    g_assert_true (g_str_has_suffix (fx_error_message (), ": build both together"));
  }
}

static void
test_this_build (void)
{
  g_autofree char *path = fake ("works");
  fx_backend *b = fx_cuda_new (path, 0, FX_F32);

  g_assert_nonnull (b);
  g_assert_cmpstr (b->name, ==, "cuda");
  fx_backend_free (b);
  g_assert_null (fx_cuda_new (path, 7, FX_F32));
  g_assert_cmpint (fx_error_status (), ==, FX_ERR_DEVICE);
}

/* The module itself says what is missing, in words and without a place in its source. */
static void
test_real_module (void)
{
  const char *path = g_getenv ("FLUX_TEST_CUDA_MODULE");
  fx_backend *b;

  if (path == NULL) {
    g_test_skip ("the CUDA module was not built");
    return;
  }
  b = fx_cuda_new (path, 1023, FX_N_DTYPES);
  g_assert_null (b);
  g_test_message ("%s", fx_error_message ());
  if (strstr (fx_error_message (), "libcublasLt") != NULL) {
    g_test_skip ("cuBLAS is not installed");
    return;
  }
  g_assert_true (
      fx_error_status () == FX_ERR_DEVICE || fx_error_status () == FX_ERR_NO_DEVICE);
  g_assert_true (strstr (fx_error_message (), "NVIDIA driver") != NULL ||
                 strstr (fx_error_message (), "no GPU number 1023") != NULL);
  g_assert_null (strstr (fx_error_message (), ".c:"));
}

int
main (int argc, char **argv)
{
  if (argc == 2 && strcmp (argv[1], "--look-for-module") == 0) {
    gboolean found = fx_cuda_new (NULL, 0, FX_BF16) != NULL;

    g_print ("%d: %s\n", found ? FX_OK : fx_error_status (),
        found ? "found" : fx_error_message ());
    return 0;
  }
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cuda-module/places", test_module_places);
  g_test_add_func ("/cuda-module/wrong-paths-are-told", test_wrong_paths);
  g_test_add_func ("/cuda-module/one-of-another-build-is-refused", test_other_builds);
  g_test_add_func ("/cuda-module/one-of-this-build-is-taken", test_this_build);
  g_test_add_func ("/cuda-module/a-missing-driver-is-told", test_real_module);
  return g_test_run ();
}
