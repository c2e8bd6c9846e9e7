/* tests/flux/test-room.c: a device that is too small is found out before weights are
 * read. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/sample/sampler.h"
#include "tests/flux/trainer-common.h"

enum { TEXT = 8, IMAGE = 16 };

/* A CPU that says how much memory is free, as a GPU does. */
typedef struct {
  fx_backend *b;
  const fx_ops *cpu;
  fx_ops ops;
  FluxTrainConfig c;
  char *dir;
} Fixture;

static size_t free_bytes;

static int
free_memory (fx_backend *b, size_t *bytes)
{
  *bytes = free_bytes;
  return FX_OK;
}

static void
setup (Fixture *f, gconstpointer data)
{
  f->b = fx_cpu_new (1);
  f->cpu = f->b->ops;
  f->ops = *f->cpu;
  f->ops.free_memory = free_memory;
  f->b->ops = &f->ops;
  test_config_init (&f->c);
  f->dir = test_model_dir ();
}

static void
teardown (Fixture *f, gconstpointer data)
{
  f->b->ops = f->cpu;
  fx_backend_free (f->b);
  g_free (f->dir);
}

/* What the error says is needed; 0 when there is room. */
static gsize
trainer_lacks_when (Fixture *f, FluxOffload offload, const char *word)
{
  const FluxModelKey key = {.path = f->dir, .qtype = FX_Q_NF4, .offload = offload};
  g_autoptr (GError) error = NULL;
  guint64 needed = 0, available = 0;
  const char *hint;

  if (flux_trainer_check_room (f->b, &key, &f->c, TEXT, IMAGE, &error)) {
    g_assert_no_error (error);
    return 0;
  }
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE);
  g_assert_true (flux_error_get_room (error, &needed, &available, &hint));
  g_assert_cmpuint (needed, >, available);
  g_assert_nonnull (strstr (error->message, word));
  g_assert_nonnull (strstr (error->message, hint));
  return (gsize)needed;
}

static gsize
trainer_lacks (Fixture *f, const char *word)
{
  return trainer_lacks_when (f, FLUX_OFFLOAD_NONE, word);
}

static gsize
sampler_lacks (Fixture *f, FluxOffload offload)
{
  FluxModelKey key = {.path = f->dir, .qtype = FX_Q_NF4, .offload = offload};
  g_autoptr (GError) error = NULL;
  guint64 needed = 0, available = 0;
  const char *hint;

  if (flux_sampler_check_room (f->b, &key, 64, 128, TEXT, &error)) {
    g_assert_no_error (error);
    return 0;
  }
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE);
  g_assert_true (flux_error_get_room (error, &needed, &available, &hint));
  g_assert_cmpuint (available, ==, free_bytes);
  g_assert_nonnull (strstr (error->message, "64x128"));
  g_assert_cmpint (
      strstr (hint, "offload=stream") != NULL, ==, offload != FLUX_OFFLOAD_STREAM);
  return (gsize)needed;
}

static void
test_training (Fixture *f, gconstpointer data)
{
  gsize needed;

  free_bytes = 1 << 20;
  needed = trainer_lacks (f, "1 MiB are free: end what else uses it");
  g_assert_cmpuint (needed, >, free_bytes);
  free_bytes = needed;
  g_assert_cmpuint (trainer_lacks (f, ""), ==, 0);
  free_bytes = needed - 1;
  g_assert_cmpuint (trainer_lacks (f, "free"), ==, needed);
}

/* The budget is what counts where it is less than what is free. */
static void
test_budget (Fixture *f, gconstpointer data)
{
  gsize needed;

  free_bytes = SIZE_MAX;
  g_assert_cmpuint (trainer_lacks (f, ""), ==, 0);
  f->c.budget = 1 << 20;
  needed = trainer_lacks (f, "1 MiB are its budget: raise vram-budget");
  f->c.budget = needed;
  g_assert_cmpuint (trainer_lacks (f, ""), ==, 0);
  free_bytes = needed - 1;
  g_assert_cmpuint (trainer_lacks (f, "are free"), ==, needed);
}

/* What is said to be enough is enough. */
static void
test_plan_is_kept (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxModel) model = test_model ();
  g_autoptr (FluxTrainer) trainer = NULL;
  g_autoptr (GError) error = NULL;

  free_bytes = 0;
  f->c.budget = trainer_lacks (f, "free");
  trainer = flux_trainer_new (model, &f->c, TEXT, IMAGE, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (flux_trainer_get_bytes (trainer), <=, f->c.budget);
}

/* With its blocks on the host the base takes less. */
static void
test_streamed_training (Fixture *f, gconstpointer data)
{
  gsize needed, streamed;

  free_bytes = 0;
  needed = trainer_lacks (f, "free");
  streamed = trainer_lacks_when (f, FLUX_OFFLOAD_STREAM, "free");
  g_assert_cmpuint (streamed, <, needed);
  free_bytes = streamed;
  g_assert_cmpuint (trainer_lacks_when (f, FLUX_OFFLOAD_STREAM, ""), ==, 0);
  g_assert_cmpuint (trainer_lacks (f, ""), ==, needed);
}

static void
test_sampler (Fixture *f, gconstpointer data)
{
  gsize needed, streamed;

  free_bytes = 0;
  needed = sampler_lacks (f, FLUX_OFFLOAD_NONE);
  streamed = sampler_lacks (f, FLUX_OFFLOAD_STREAM);
  g_assert_cmpuint (streamed, <, needed);
  free_bytes = needed;
  g_assert_cmpuint (sampler_lacks (f, FLUX_OFFLOAD_NONE), ==, 0);
  free_bytes = needed - 1;
  g_assert_cmpuint (sampler_lacks (f, FLUX_OFFLOAD_NONE), ==, needed);
  g_assert_cmpuint (sampler_lacks (f, FLUX_OFFLOAD_STREAM), ==, 0);
}

static void
test_cpu_is_not_asked (Fixture *f, gconstpointer data)
{
  f->b->ops = f->cpu;
  free_bytes = 0;
  g_assert_cmpuint (trainer_lacks (f, ""), ==, 0);
  g_assert_cmpuint (sampler_lacks (f, FLUX_OFFLOAD_NONE), ==, 0);
}

static gboolean
refuse (fx_backend *b, gpointer data, GError **error)
{
  g_assert_cmpstr (b->name, ==, "cpu");
  (*(guint *)data)++;
  flux_error_no_room (error, "It", 3 << 20, 2 << 20, "free", "do something");
  return FALSE;
}

static gboolean
must_not_load (const char *what, gint percent, gpointer data)
{
  g_assert_not_reached ();
}

static void
test_model_is_not_loaded (Fixture *f, gconstpointer data)
{
  guint asked = 0;
  FluxModelKey key = {.path = f->dir,
      .qtype = FX_Q_NF4,
      .compute = FX_F32,
      .device = FLUX_DEVICE_CPU,
      .room = refuse,
      .room_data = &asked};
  g_autoptr (GError) error = NULL, copy = NULL;
  g_autoptr (FluxModel) model = NULL;
  guint64 needed, available;
  const char *hint;

  g_assert_null (flux_model_acquire (&key, must_not_load, NULL, &error));
  g_assert_cmpstr (error->message, ==,
      "It takes at least 3 MiB of the device's memory, and 2 MiB are free: do "
      "something.");
  copy = g_error_copy (error);
  g_clear_error (&error);
  g_assert_true (flux_error_get_room (copy, &needed, &available, &hint));
  g_assert_cmpuint (needed, ==, 3 << 20);
  g_assert_cmpuint (available, ==, 2 << 20);
  g_assert_cmpstr (hint, ==, "do something");
  g_assert_null (flux_model_load (&key, must_not_load, NULL, &error));
  g_assert_cmpuint (asked, ==, 2);
  g_clear_error (&error);
  /* One that is loaded already takes no more room. */
  model = test_model ();
  flux_model_unref (flux_model_acquire (&key, must_not_load, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (asked, ==, 2);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, func) g_test_add ("/room/" name, Fixture, NULL, setup, func, teardown)
  ADD ("trainer", test_training);
  ADD ("budget", test_budget);
  ADD ("plan-is-kept", test_plan_is_kept);
  ADD ("streamed-training", test_streamed_training);
  ADD ("sampler", test_sampler);
  ADD ("cpu-is-not-asked", test_cpu_is_not_asked);
  ADD ("model-is-not-loaded", test_model_is_not_loaded);
  return g_test_run ();
}
