/* tests/flux/test-safetensors-write.c: files are written as the reference writes them,
 * and replaced whole or not at all. SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flux/error.h"
#include "flux/files/safetensors.h"
#include "tests/testdata.h"

static char *
make_folder (void)
{
  return g_dir_make_tmp ("flux-write-XXXXXX", NULL);
}

/* The folder must hold nothing but `n` files: no temporary one was left. */
static void
assert_n_files (const char *folder, guint n)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  guint found = 0;

  while (g_dir_read_name (dir) != NULL)
    found++;
  g_dir_close (dir);
  g_assert_cmpuint (found, ==, n);
}

static void
remove_folder (char *folder)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);

    g_assert_cmpint (g_remove (path), ==, 0);
  }
  g_dir_close (dir);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
  g_free (folder);
}

static void
assert_contents (const char *path, const char *expected, gsize length)
{
  g_autofree char *got = NULL;
  gsize n;

  g_assert_true (g_file_get_contents (path, &got, &n, NULL));
  g_assert_cmpmem (got, n, expected, length);
}

/* Reads a file of the reference writer, writes its tensors in reverse order, and
 * compares all bytes. */
static void
rewrite (const char *original, const char *const *keys)
{
  char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "again.safetensors", NULL);
  g_autofree char *expected = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxSafetensors) st = flux_safetensors_open (original, &error);
  g_autoptr (GArray) sources = g_array_new (FALSE, TRUE, sizeof (FluxTensorSource));
  g_autoptr (GPtrArray) metadata = g_ptr_array_new ();
  gsize length;

  g_assert_no_error (error);
  for (guint i = flux_safetensors_get_n_tensors (st); i-- > 0;) {
    const FluxTensor *t = flux_safetensors_get_nth (st, i);
    FluxTensorSource source = {t->name, t->dtype, t->n_dims, {0}, t->data};

    memcpy (source.dims, t->dims, sizeof source.dims);
    g_array_append_val (sources, source);
  }
  for (; *keys != NULL; keys++) {
    g_ptr_array_add (metadata, (gpointer)*keys);
    g_ptr_array_add (metadata, (gpointer)flux_safetensors_get_metadata (st, *keys));
  }
  g_ptr_array_add (metadata, NULL);
  g_assert_true (flux_safetensors_write (path, (FluxTensorSource *)sources->data,
      sources->len, (const char *const *)metadata->pdata, &error));
  g_assert_no_error (error);
  g_assert_true (g_file_get_contents (original, &expected, &length, NULL));
  assert_contents (path, expected, length);
  assert_n_files (folder, 1);
  remove_folder (folder);
}

static void
test_writes_the_bytes_of_the_reference (void)
{
  static const char *const format[] = {"format", NULL};
  static const char *const both[] = {"format", "lora_adapter_metadata", NULL};
  g_autofree char *shared = flux_test_shared ();
  g_autofree char *lora = NULL, *adapter = NULL, *nf4 = NULL;

  if (shared == NULL) {
    g_test_skip ("the shared data (golden/lora) is absent");
    return;
  }
  lora = g_build_filename (shared, "golden", "lora", NULL);
  adapter = g_build_filename (
      shared, "golden", "adapter", "pytorch_lora_weights.safetensors", NULL);
  nf4 = g_build_filename (
      shared, "golden", "transformer-nf4", "diffusion_pytorch_model.safetensors", NULL);
  if (g_file_test (nf4, G_FILE_TEST_EXISTS))
    rewrite (nf4, format);
  rewrite (adapter, both);
  g_free (g_steal_pointer (&lora));
  lora = g_build_filename (
      shared, "golden", "lora", "pytorch_lora_weights.safetensors", NULL);
  rewrite (lora, format);
}

static void
test_sorts_types_and_names (void)
{
  char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "a.safetensors", NULL);
  const guint64 data[2] = {0};
  const FluxTensorSource tensors[] = {
      {"u8", FX_U8, 1, {3}, data},
      {"b", FX_F32, 0, {0}, data},
      {"i64", FX_I64, 1, {1}, data},
      {"empty", FX_F64, 2, {0, 4}, NULL},
      {"a\n\"\\\x01", FX_F32, 2, {1, 2}, data},
      {"bf16", FX_BF16, 1, {2}, data},
  };
  static const char expected[] =
      "{\"i64\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
      "\"empty\":{\"dtype\":\"F64\",\"shape\":[0,4],\"data_offsets\":[8,8]},"
      "\"a\\n\\\"\\\\\\u0001\":{\"dtype\":\"F32\",\"shape\":[1,2],"
      "\"data_offsets\":[8,16]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[16,20]},"
      "\"bf16\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[20,24]},"
      "\"u8\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[24,27]}}";
  g_autofree char *got = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxSafetensors) st = NULL;
  gsize length, header = (strlen (expected) + 7) / 8 * 8;

  g_assert_true (
      flux_safetensors_write (path, tensors, G_N_ELEMENTS (tensors), NULL, &error));
  g_assert_no_error (error);
  g_assert_true (g_file_get_contents (path, &got, &length, NULL));
  g_assert_cmpuint (length, ==, 8 + header + 27);
  g_assert_cmpuint ((guchar)got[0] + 256 * (guchar)got[1], ==, header);
  g_assert_cmpmem (got + 8, strlen (expected), expected, strlen (expected));
  for (gsize i = strlen (expected); i < header; i++)
    g_assert_cmpint (got[8 + i], ==, ' ');
  st = flux_safetensors_open (path, &error);
  g_assert_no_error (error);
  g_assert_nonnull (flux_safetensors_lookup (st, "a\n\"\\\x01"));
  remove_folder (folder);
}

static void
test_refuses_impossible_tensors (void)
{
  char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "a.safetensors", NULL);
  const float one = 1;
  const FluxTensorSource good = {"w", FX_F32, 1, {1}, &one};
  const FluxTensorSource bad[] = {
      {"w", FX_U8, 1, {1}, &one},
      {"v", FX_F32, 1, {-1}, &one},
      {"v", FX_F32, 3, {G_MAXINT32, G_MAXINT32, G_MAXINT32}, &one},
      {"v", FX_N_DTYPES, 1, {1}, &one},
      {"v", FX_F32, FLUX_TENSOR_MAX_DIMS + 1, {1}, &one},
      {"\xff", FX_F32, 1, {1}, &one},
      {"__metadata__", FX_F32, 1, {1}, &one},
  };
  static const char *const odd[] = {"key", NULL};

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    const FluxTensorSource both[] = {good, bad[i]};
    g_autoptr (GError) error = NULL;

    g_assert_false (flux_safetensors_write (path, both, 2, NULL, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  }
  {
    g_autoptr (GError) error = NULL;

    g_assert_false (flux_safetensors_write (path, &good, 1, odd, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  }
  assert_n_files (folder, 0);
  g_assert_true (flux_safetensors_write (path, &good, 1, NULL, NULL));
  remove_folder (folder);
}

static void
test_keeps_the_mode (void)
{
  char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "state", NULL);
  mode_t mask = umask (022);
  GStatBuf st;

  g_assert_true (flux_file_replace (path, "one", 3, NULL));
  g_assert_cmpint (g_stat (path, &st), ==, 0);
  g_assert_cmpint (st.st_mode & 0777, ==, 0644);
  g_assert_cmpint (g_chmod (path, 0600), ==, 0);
  g_assert_true (flux_file_replace (path, "two!", 4, NULL));
  g_assert_cmpint (g_stat (path, &st), ==, 0);
  g_assert_cmpint (st.st_mode & 0777, ==, 0600);
  assert_contents (path, "two!", 4);
  umask (mask);
  remove_folder (folder);
}

static void
test_refuses_folders_and_devices (void)
{
  char *folder = make_folder ();
  g_autofree char *nowhere = g_build_filename (folder, "no", "state", NULL);
  g_autofree char *fifo = g_build_filename (folder, "fifo", NULL);
  g_autoptr (GError) error = NULL;

  g_assert_false (flux_file_replace (folder, "x", 1, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_clear_error (&error);
  g_assert_false (flux_file_replace (nowhere, "x", 1, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, nowhere));
  g_clear_error (&error);
  g_assert_cmpint (mkfifo (fifo, 0600), ==, 0);
  g_assert_false (flux_file_replace (fifo, "x", 1, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  assert_n_files (folder, 1);
  remove_folder (folder);
}

/* Also where access() says that it would work, and without leaving anything behind. */
static void
test_tells_beforehand (void)
{
  char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "state", NULL);
  g_autofree char *below = g_build_filename (path, "state", NULL);
  g_autoptr (GError) error = NULL;

  g_assert_true (flux_file_check_writable (path, "It", &error));
  assert_n_files (folder, 0);
  g_assert_true (flux_file_replace (path, "one", 3, NULL));
  g_assert_true (flux_file_check_writable (path, "It", &error));
  assert_contents (path, "one", 3);
  assert_n_files (folder, 1);
  g_assert_false (flux_file_check_writable (folder, "It", &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_clear_error (&error);
  g_assert_false (flux_file_check_writable (below, "It", &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_WRITE);
  g_clear_error (&error);
  g_assert_false (flux_file_check_writable ("/proc/state", "It", &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_WRITE);
  g_assert_nonnull (strstr (error->message, "'/proc'"));
  remove_folder (folder);
}

/* 1 MiB of zeros over the three bytes that are there: must fail and change nothing. */
static void
overwrite_in_vain (const char *folder, int code)
{
  g_autofree char *path = g_build_filename (folder, "state", NULL);
  g_autofree char *zeros = g_malloc0 (1 << 20);
  const FluxTensorSource t = {"w", FX_U8, 1, {1 << 20}, zeros};
  g_autoptr (GError) error = NULL;

  g_assert_true (flux_file_replace (path, "old", 3, &error));
  g_assert_false (flux_file_replace (path, zeros, 1 << 20, &error));
  g_assert_error (error, FLUX_ERROR, code);
  g_assert_nonnull (strstr (error->message, path));
  g_clear_error (&error);
  g_assert_false (flux_safetensors_write (path, &t, 1, NULL, &error));
  g_assert_error (error, FLUX_ERROR, code);
  assert_contents (path, "old", 3);
  assert_n_files (folder, 1);
}

static void
test_failed_write_keeps_the_old_file (void)
{
  const struct rlimit limit = {65536, 65536};
  char *folder;

  if (!g_test_subprocess ()) {
    g_test_trap_subprocess (NULL, 0, 0);
    g_test_trap_assert_passed ();
    return;
  }
  folder = make_folder ();
  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &limit), ==, 0);
  overwrite_in_vain (folder, FLUX_ERROR_WRITE);
  remove_folder (folder);
}

static gboolean
put_map (const char *file, guint id)
{
  g_autofree char *line = g_strdup_printf ("0 %u 1", id);
  int fd = g_open (file, O_WRONLY);
  gboolean ok = fd >= 0 && write (fd, line, strlen (line)) == (gssize)strlen (line);

  if (fd >= 0)
    close (fd);
  return ok;
}

/* Root of a mount namespace of our own: as we are, or in a user namespace. */
static gboolean
become_mounter (void)
{
  guint uid = getuid (), gid = getgid ();
  int fd;

  if (unshare (CLONE_NEWNS) == 0)
    return TRUE;
  if (unshare (CLONE_NEWUSER | CLONE_NEWNS) != 0)
    return FALSE;
  fd = g_open ("/proc/self/setgroups", O_WRONLY);
  if (fd >= 0) {
    if (write (fd, "deny", 4) != 4)
      errno = 0; /* an old kernel: gid_map says whether it mattered */
    close (fd);
  }
  return put_map ("/proc/self/uid_map", uid) && put_map ("/proc/self/gid_map", gid);
}

/* A file system of 64 KiB of our own, where the kernel lets us mount one. */
static void
test_full_disk_keeps_the_old_file (void)
{
  enum { CANNOT_MOUNT = 77 };
  char *folder;

  if (!g_test_subprocess ()) {
    g_test_trap_subprocess (NULL, 0, 0);
    if (g_test_trap_has_passed ())
      return;
    /* The child says so on stdout, else it has failed. */
    g_test_trap_assert_stdout ("*cannot mount*");
    g_test_skip ("a file system of our own cannot be mounted here");
    return;
  }
  folder = make_folder ();
  if (!become_mounter () || mount ("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount ("none", folder, "tmpfs", 0, "size=64k") != 0) {
    g_print ("cannot mount: %s\n", g_strerror (errno));
    remove_folder (folder);
    _exit (CANNOT_MOUNT);
  }
  overwrite_in_vain (folder, FLUX_ERROR_NO_SPACE);
  g_assert_cmpint (umount2 (folder, MNT_DETACH), ==, 0);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
  g_free (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func (
      "/write/writes-the-bytes-of-the-reference", test_writes_the_bytes_of_the_reference);
  g_test_add_func ("/write/sorts-types-and-names", test_sorts_types_and_names);
  g_test_add_func ("/write/refuses-impossible-tensors", test_refuses_impossible_tensors);
  g_test_add_func ("/write/keeps-the-mode", test_keeps_the_mode);
  g_test_add_func (
      "/write/refuses-folders-and-devices", test_refuses_folders_and_devices);
  g_test_add_func ("/write/tells-beforehand", test_tells_beforehand);
  g_test_add_func (
      "/write/failed-write-keeps-the-old-file", test_failed_write_keeps_the_old_file);
  g_test_add_func (
      "/write/full-disk-keeps-the-old-file", test_full_disk_keeps_the_old_file);
  return g_test_run ();
}
