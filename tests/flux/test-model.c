/* tests/flux/test-model.c: the registry of shared models, its lock, and configurations.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/model.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "flux/files/config-json.h"
#include "transformer-common.h"

/* ---- devices ---- */

static void
test_devices (void)
{
  static const struct {
    const char *text;
    int device; /* G_MININT: refused */
  } cases[] = {{NULL, FLUX_DEVICE_AUTO}, {"auto", FLUX_DEVICE_AUTO},
      {"cpu", FLUX_DEVICE_CPU}, {"cuda", 0}, {"cuda:0", 0}, {"cuda:3", 3}, {"", G_MININT},
      {"CPU", G_MININT}, {"gpu", G_MININT}, {"cuda:", G_MININT}, {"cuda:-1", G_MININT},
      {"cuda:1x", G_MININT}, {"cuda:4294967296", G_MININT}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    int device = 77;
    if (cases[i].device == G_MININT) {
      g_assert_false (flux_device_parse (cases[i].text, &device, &error));
      g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
    } else {
      g_assert_true (flux_device_parse (cases[i].text, &device, &error));
      g_assert_cmpint (device, ==, cases[i].device);
    }
  }
}

static void
test_the_cpu_computes_in_float32 (void)
{
  g_autoptr (GError) error = NULL;
  fx_backend *b = flux_backend_new (FLUX_DEVICE_CPU, FX_N_DTYPES, &error);

  g_assert_no_error (error);
  g_assert_cmpint (b->compute, ==, FX_F32);
  fx_backend_free (b);
  g_assert_null (flux_backend_new (FLUX_DEVICE_CPU, FX_BF16, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
}

/* ---- the registry ---- */

static FluxModel *
acquire (const char *dir, fx_qtype qtype, fx_dtype compute)
{
  FluxModelKey key = {dir, qtype, compute, FLUX_DEVICE_CPU};
  g_autoptr (GError) error = NULL;
  FluxModel *model = flux_model_acquire (&key, NULL, NULL, &error);

  g_assert_no_error (error);
  return model;
}

static void
test_one_copy_for_all (void)
{
  g_autofree char *dir = test_small_dir (), *again = g_strconcat (dir, "/.", NULL);
  g_autoptr (FluxModel) first = acquire (dir, FX_Q_NONE, FX_F32);
  g_autoptr (FluxModel) second = acquire (again, FX_Q_NONE, FX_F32);
  g_autoptr (FluxModel) best = acquire (dir, FX_Q_NONE, FX_N_DTYPES);
  g_autoptr (FluxModel) other = acquire (dir, FX_Q_NF4, FX_F32);

  g_assert_true (first == second);
  g_assert_true (first == best);
  g_assert_true (first != other);
  g_assert_cmpstr (
      flux_model_get_fingerprint (first), ==, flux_model_get_fingerprint (other));
}

static gboolean
count_loads (const char *what, gint percent, gpointer data)
{
  if (percent == 100)
    g_atomic_int_inc ((gint *)data);
  return TRUE;
}

typedef struct {
  const char *dir;
  gint *loads;
} Job;

static gpointer
acquire_in_thread (gpointer data)
{
  Job *job = data;
  FluxModelKey key = {job->dir, FX_Q_NONE, FX_F32, FLUX_DEVICE_CPU};

  return flux_model_acquire (&key, count_loads, job->loads, NULL);
}

static void
test_threads_load_once (void)
{
  g_autofree char *dir = test_small_dir ();
  gint loads = 0;
  Job job = {dir, &loads};
  GThread *threads[6];
  FluxModel *models[6];

  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("acquire", acquire_in_thread, &job);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++) {
    models[i] = g_thread_join (threads[i]);
    g_assert_nonnull (models[i]);
    g_assert_true (models[i] == models[0]);
  }
  g_assert_cmpint (loads, ==, 1);
  for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
    flux_model_unref (models[i]);
  /* The last reference freed it: it is loaded again. */
  flux_model_unref (acquire_in_thread (&job));
  g_assert_cmpint (loads, ==, 2);
}

static gboolean
cancel (const char *what, gint percent, gpointer data)
{
  return FALSE;
}

static void
test_a_failed_load_leaves_nothing (void)
{
  g_autofree char *dir = test_small_dir ();
  FluxModelKey key = {dir, FX_Q_NONE, FX_F32, FLUX_DEVICE_CPU};
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxModel) model = NULL;

  g_assert_null (flux_model_acquire (&key, cancel, NULL, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_CANCELLED);
  g_clear_error (&error);
  key.path = "/nowhere";
  g_assert_null (flux_model_acquire (&key, NULL, NULL, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  model = acquire (dir, FX_Q_NONE, FX_F32);
  g_assert_nonnull (model);
}

/* ---- the lock ---- */

enum { WAITING = 5 };

typedef struct {
  FluxModel *model;
  int number, *order;
  gint *served;
  gint tid; /* once it is about to wait */
} Waiter;

/* Whether a thread of this process sleeps: S behind its name, which is in brackets. */
static gboolean
sleeps (gint tid)
{
  g_autofree char *path = g_strdup_printf ("/proc/self/task/%d/stat", tid);
  g_autofree char *stat = NULL;

  g_assert_true (g_file_get_contents (path, &stat, NULL, NULL));
  return g_str_has_prefix (strrchr (stat, ')'), ") S");
}

static gpointer
wait_for_turn (gpointer data)
{
  Waiter *w = data;

  g_atomic_int_set (&w->tid, (gint)syscall (SYS_gettid));
  flux_model_lock (w->model);
  w->order[g_atomic_int_add (w->served, 1)] = w->number;
  flux_model_unlock (w->model);
  return NULL;
}

static void
test_the_lock_serves_in_order (void)
{
  g_autofree char *dir = test_small_dir ();
  g_autoptr (FluxModel) model = acquire (dir, FX_Q_NONE, FX_F32);
  GThread *threads[WAITING];
  Waiter waiters[WAITING];
  int order[WAITING];
  gint served = 0;

  flux_model_lock (model);
  for (int i = 0; i < WAITING; i++) {
    waiters[i] = (Waiter){model, i, order, &served, 0};
    threads[i] = g_thread_new ("waiter", wait_for_turn, &waiters[i]);
    /* Nothing but its turn is waited for there: it has its ticket when it sleeps. */
    while (g_atomic_int_get (&waiters[i].tid) == 0 || !sleeps (waiters[i].tid))
      g_usleep (1000);
    g_assert_cmpint (g_atomic_int_get (&served), ==, 0);
  }
  flux_model_unlock (model);
  for (int i = 0; i < WAITING; i++)
    g_thread_join (threads[i]);
  for (int i = 0; i < WAITING; i++)
    g_assert_cmpint (order[i], ==, i);
}

/* ---- configurations ---- */

/* Reads config.json with this text. */
static gboolean
read_config (const char *text, FluxConfig *c, GError **error)
{
  g_autofree char *dir = g_dir_make_tmp ("flux-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "config.json", NULL);
  gboolean ok;

  g_assert_true (g_file_set_contents (path, text, -1, NULL));
  ok = flux_config_read (dir, c, error);
  g_unlink (path);
  g_rmdir (dir);
  return ok;
}

#define FLUX_CLASS "\"_class_name\": \"FluxTransformer2DModel\""

static void
test_config_defaults_are_flux (void)
{
  g_autoptr (GError) error = NULL;
  FluxConfig c, dev;

  g_assert_true (read_config ("{" FLUX_CLASS ", \"guidance_embeds\": true}", &c, &error));
  g_assert_no_error (error);
  flux_config_init_dev (&dev);
  g_assert_cmpmem (&c, sizeof c, &dev, sizeof dev);
  g_assert_true (read_config ("{" FLUX_CLASS ", \"in_channels\": 384, "
                              "\"out_channels\": null, \"axes_dims_rope\": null}",
      &c, &error));
  g_assert_cmpint (c.out_channels, ==, 384);
  g_assert_false (c.guidance_embeds);
}

static void
test_bad_configs (void)
{
  static const struct {
    const char *text;
    FluxError code;
    const char *message;
  } cases[] = {{"{}", FLUX_ERROR_MISMATCH, "another architecture"},
      {"{\"_class_name\": \"SD3Transformer2DModel\"}", FLUX_ERROR_MISMATCH,
          "SD3Transformer2DModel"},
      {"{\"_class_name\": 3}", FLUX_ERROR_FORMAT, "_class_name"},
      {"{" FLUX_CLASS ", \"num_layers\": -1}", FLUX_ERROR_FORMAT, "num_layers"},
      {"{" FLUX_CLASS ", \"num_layers\": 1e3}", FLUX_ERROR_FORMAT, "num_layers"},
      {"{" FLUX_CLASS ", \"num_layers\": 99999999999}", FLUX_ERROR_FORMAT, "num_layers"},
      {"{" FLUX_CLASS ", \"num_layers\": 0, \"num_single_layers\": 0}",
          FLUX_ERROR_MISMATCH, "no blocks"},
      {"{" FLUX_CLASS ", \"num_attention_heads\": 65536}", FLUX_ERROR_MISMATCH, "65536"},
      {"{" FLUX_CLASS ", \"attention_head_dim\": 127}", FLUX_ERROR_MISMATCH, "odd"},
      {"{" FLUX_CLASS ", \"attention_head_dim\": 64}", FLUX_ERROR_MISMATCH,
          "axes_dims_rope"},
      {"{" FLUX_CLASS ", \"axes_dims_rope\": [16, 56]}", FLUX_ERROR_MISMATCH, "3"},
      {"{" FLUX_CLASS ", \"axes_dims_rope\": [15, 57, 56]}", FLUX_ERROR_MISMATCH, "even"},
      {"{" FLUX_CLASS ", \"axes_dims_rope\": [16, 56, 56, 0, 0, 0]}", FLUX_ERROR_FORMAT,
          "axes_dims_rope"},
      {"{" FLUX_CLASS ", \"patch_size\": 2}", FLUX_ERROR_MISMATCH, "patch_size"},
      {"{" FLUX_CLASS ", \"guidance_embeds\": 1}", FLUX_ERROR_FORMAT, "guidance_embeds"},
      {"{\n  \"num_layers\": }", FLUX_ERROR_FORMAT, "line 2, column 17"},
      {"[1]", FLUX_ERROR_FORMAT, "object"}, {"", FLUX_ERROR_FORMAT, "config.json"}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    FluxConfig c;
    g_assert_false (read_config (cases[i].text, &c, &error));
    g_test_message ("%s", error->message);
    g_assert_error (error, FLUX_ERROR, (gint)cases[i].code);
    g_assert_nonnull (strstr (error->message, cases[i].message));
    g_assert_nonnull (strstr (error->message, "config.json"));
  }
}

/* The folder that is not there is the one that was asked for; a file is no folder; and a
 * folder may be there without its configuration. */
static void
test_no_config (void)
{
  g_autofree char *dir = g_dir_make_tmp ("flux-XXXXXX", NULL);
  g_autofree char *nowhere = g_build_filename (dir, "nowhere", NULL);
  g_autofree char *file = g_build_filename (dir, "file", NULL);
  g_autofree char *quoted = g_strdup_printf ("There is no model folder '%s'", nowhere);
  g_autofree char *is_file = g_strdup_printf ("'%s' is a file", file);
  g_autofree char *part = g_build_filename (nowhere, "text_encoder", "config.json", NULL);
  struct {
    const char *dir, *message;
  } cases[] = {{nowhere, quoted}, {file, is_file}, {dir, "config.json"}};
  g_autoptr (GError) error = NULL;

  g_assert_true (g_file_set_contents (file, "x", 1, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    FluxConfig c;

    g_assert_false (flux_config_read (cases[i].dir, &c, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
    g_assert_nonnull (strstr (error->message, cases[i].message));
    g_clear_error (&error);
  }
  g_assert_null (flux_config_json_read (part, &error));
  g_assert_nonnull (strstr (error->message, quoted));
  g_unlink (file);
  g_rmdir (dir);
}

/* ---- transformers whose file is not what the configuration says ---- */

/* The small transformer with one thing changed in a copy. */
static void
check_broken (
    const char *drop, const char *config_from, const char *config_to, const char *message)
{
  g_autofree char *from = test_small_dir (), *dir = g_dir_make_tmp ("flux-XXXXXX", NULL);
  g_autofree char *weights =
      g_build_filename (dir, "diffusion_pytorch_model.safetensors", NULL);
  g_autofree char *config = g_build_filename (dir, "config.json", NULL);
  g_autofree char *old = g_build_filename (from, "config.json", NULL), *text = NULL;
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (from, NULL);
  g_autoptr (GArray) sources = g_array_new (FALSE, TRUE, sizeof (FluxTensorSource));
  g_autoptr (GString) edited = NULL;
  g_autoptr (GError) error = NULL;
  fx_backend *b = test_backend ();

  for (guint i = 0; i < flux_safetensors_get_n_tensors (file); i++) {
    const FluxTensor *t = flux_safetensors_get_nth (file, i);
    FluxTensorSource s = {.name = t->name,
        .dtype = t->dtype,
        .n_dims = t->n_dims,
        .dims = {t->dims[0], t->n_dims > 1 ? t->dims[1] : 0},
        .data = t->data};
    if (g_strcmp0 (t->name, drop) != 0)
      g_array_append_val (sources, s);
  }
  g_assert_true (flux_safetensors_write (
      weights, (FluxTensorSource *)(void *)sources->data, sources->len, NULL, &error));
  g_assert_true (g_file_get_contents (old, &text, NULL, NULL));
  edited = g_string_new (text);
  if (config_from != NULL)
    g_assert_cmpuint (g_string_replace (edited, config_from, config_to, 1), ==, 1);
  g_assert_true (g_file_set_contents (config, edited->str, -1, NULL));
  g_assert_null (
      flux_transformer_load (dir, b, FX_Q_NF4, FX_HOME_DEVICE, NULL, NULL, NULL, &error));
  g_test_message ("%s", error->message);
  g_assert_nonnull (strstr (error->message, message));
  g_unlink (weights);
  g_unlink (config);
  g_rmdir (dir);
  fx_backend_free (b);
}

static void
test_broken_transformers (void)
{
  check_broken ("transformer_blocks.0.attn.to_k.weight", NULL, NULL,
      "transformer_blocks.0.attn.to_k");
  check_broken ("single_transformer_blocks.1.proj_out.bias", NULL, NULL,
      "single_transformer_blocks.1.proj_out.bias");
  check_broken (NULL, "\"num_single_layers\": 2", "\"num_single_layers\": 3",
      "single_transformer_blocks.2");
  check_broken (NULL, "\"joint_attention_dim\": 48", "\"joint_attention_dim\": 64",
      "context_embedder");
  check_broken (NULL, "\"guidance_embeds\": false", "\"guidance_embeds\": true",
      "guidance_embedder");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/model/devices", test_devices);
  g_test_add_func (
      "/model/the-cpu-computes-in-float32", test_the_cpu_computes_in_float32);
  g_test_add_func ("/model/one-copy-for-all", test_one_copy_for_all);
  g_test_add_func ("/model/threads-load-once", test_threads_load_once);
  g_test_add_func (
      "/model/a-failed-load-leaves-nothing", test_a_failed_load_leaves_nothing);
  g_test_add_func ("/model/the-lock-serves-in-order", test_the_lock_serves_in_order);
  g_test_add_func ("/config/defaults-are-flux", test_config_defaults_are_flux);
  g_test_add_func ("/config/bad-configs", test_bad_configs);
  g_test_add_func ("/config/no-config", test_no_config);
  g_test_add_func ("/config/broken-transformers", test_broken_transformers);
  return g_test_run ();
}
